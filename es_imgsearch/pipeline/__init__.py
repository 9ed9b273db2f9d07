"""From a change to an acknowledged document: read, embed, describe, write, acknowledge.

    submit ──▶ read ──▶ embed ──▶ describe ──▶ write ──▶ acknowledge
              workers   look-up   (threads      thread    (threads that
             (processes) thread,   that call              call it)
                        encoders   it)
                        (a thread each)

Each stage hands what it made to the one that follows (`emit`) and knows no other.  Every file goes
the whole way: one that cannot be read goes on as a failure, and one that is no picture passes
through to the end.  The way of one new picture, function by function:

    Pipeline.submit            waits for a place, looks at the file (stat)
    InFlight.begin             makes it a job: one change a path is in flight
    ReadStage.read             gives the file to a worker
    ReadWorkers.read           queues it; in the worker process `read_file` decodes and describes it
    ReadStage.end_read         takes the picture from the worker
    EmbedStage.put             queues it for the look-up
    EmbedStage.look_up         looks a batch up, or gives it to an encoder
    VectorSource.known         finds vectors of the same content: embedded lately, or stored
    EmbedStage.embed           takes the batch in the encoder's thread
    VectorSource.embedded      stacks the pictures, checks the vectors
    InProcessEncoder.outputs   runs the model (or `EncoderProcess.outputs`, in another process)
    DescribeStage.put          adds fields made of the vector, such as tags
    picture_document           makes the document
    WriteStage.put             queues it for the next bulk
    WriteStage.write           sends the bulk until each item is acknowledged or refused
    AcknowledgeStage.put       counts the picture, remembers the file
    InFlight.end               gives the place back, or has a file that changed meanwhile read again

Workers decode ahead, an encoder always finds its next batch waiting, and writing overlaps with
both.  As many files are on their way at most as `queue_size` and `queue_memory_mb` allow; `submit`
waits for a place.  One change a path is in flight; a change that comes meanwhile is looked at
when the first is done.  What was not finished at `close` is found by the next reconcile.
"""
