"""Index changed files: read, embed, describe, write, acknowledge.

    submit ──▶ read ──▶ embed ──▶ describe ──▶ write ──▶ acknowledge
              workers   look-up   (threads      thread    (threads that
             (processes) thread,   that call              call it)
                        encoders   it)
                        (a thread each)

Each stage passes its results to the next one (`emit`) and knows no other.  Every file takes the
whole way: one that cannot be read continues as a failure, and one that is no picture passes
through to the end.  The way of one new picture, function by function:

    Intake.submit              waits for a free slot, reads the file's state (stat)
    InFlight.begin             begins a job: one change per path is in flight
    ReadStage.read             queues the file for a worker
    ReadWorkers.read           has a worker process decode and describe it (`read_file`)
    ReadStage.finish_read      takes the picture from the worker
    EmbedStage.put             queues it for the look-up
    EmbedStage.look_up         looks up a batch, queues new contents for an encoder
    VectorSource.look_up       finds vectors of the same content: cached or stored
    EmbedStage.embed           takes a batch in the encoder's thread
    VectorSource.embed         stacks the pictures, checks the vectors
    InProcessEncoder.outputs   runs the model (or `EncoderProcess.outputs`, in another process)
    DescribeStage.put          adds fields computed from the vector, such as tags
    CarriedFields.of           looks up fields that only `import` or `rewrite` gave
    picture_document           makes the document
    WriteStage.put             queues it for the next bulk
    WriteStage.write           sends the bulk until each item is acknowledged or refused
    AcknowledgeStage.put       counts the picture, remembers the file's state
    InFlight.end               releases the slot, or reads a file that changed meanwhile again

Workers decode ahead, an encoder always finds its next batch waiting, and writing overlaps with
both.  `queue_size` and `queue_memory_mb` limit the files in flight; `submit` waits for a free slot.
A change of a path that is in flight is handled when its job ends; a file that changed unnoticed
settles first.  The next comparison of the folder with the index finds what was not finished at
`close`.
"""
