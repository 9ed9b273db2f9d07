// A box drawn on a picture by mouse or touch (cropperjs), in step with four number fields.
//
// Markup: figure#query-picture, or figure[data-box-form=ID of a form], holding
//   img[data-width][data-height] (pixels of the upright original); in that form (else #search) the
//   fields box_x, box_y, box_w and box_h, in the same pixels.  The fields are the way of the
//   keyboard, and of a browser without JavaScript.  Two buttons are added to the figure.
// A mouse draws by dragging; a finger scrolls the page, and draws after "Draw a box".
const NAMES = ["box_x", "box_y", "box_w", "box_h"];
const EDGES = ["n", "e", "s", "w", "ne", "nw", "se", "sw"];
const TEMPLATE = `<cropper-canvas aria-hidden="true">
  <cropper-shade hidden></cropper-shade>
  <cropper-handle action="select" plain></cropper-handle>
  <cropper-selection movable resizable precise outlined hidden>
    <cropper-handle action="move" plain></cropper-handle>
    ${EDGES.map((each) => `<cropper-handle action="${each}-resize"></cropper-handle>`).join("")}
  </cropper-selection>
</cropper-canvas>`;
// A shorter drag is a click.
const LEAST_PIXELS = 4;

class Box {
  constructor(image, fields) {
    this.image = image;
    this.fields = fields;
    // What the pointer does, between its press and its release.
    this.action = null;
    this.frame = document.createElement("div");
    this.frame.className = "box-frame";
    image.replaceWith(this.frame);
    // The mouse begins a box, not a drag of the picture.
    image.draggable = false;
    this.frame.append(image);
    const tools = document.createElement("p");
    tools.className = "box-tools";
    this.draw = this.button(tools, "Draw a box", () => this.arm());
    this.clear = this.button(tools, "Clear the box", () => this.write(["", "", "", ""]));
    this.frame.after(tools);
    this.clear.disabled = !this.numbers();
    for (const field of fields) field.addEventListener("input", () => this.show());
    this.frame.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" && !this.isArmed) event.stopPropagation();
    }, { capture: true });
    if (this.numbers() || matchMedia("(any-pointer: fine)").matches) this.start();
  }

  // From now on a finger draws, too.
  async arm() {
    this.isArmed = true;
    this.draw.disabled = true;
    await this.start();
    this.frame.classList.add("armed");
  }

  start() {
    this.started ??= this.load();
    return this.started;
  }

  button(parent, label, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", act);
    parent.append(button);
    return button;
  }

  async load() {
    await import("./vendor/cropperjs/cropper.esm.min.js");
    // A wheel scrolls the page: there is nothing to zoom.
    this.frame.addEventListener("wheel", (event) => event.stopPropagation(), { capture: true });
    this.frame.insertAdjacentHTML("beforeend", TEMPLATE);
    this.selection = this.frame.querySelector("cropper-selection");
    this.selection.addEventListener("change", (event) => this.drawn(event.detail));
    this.frame.addEventListener("actionstart", (event) => {
      this.action = event.detail.action;
      this.from = this.point(event.detail.relatedEvent);
    });
    // cropperjs begins a box on the wrong side of the pointer if that goes up or left.
    this.frame.addEventListener("action", (event) => {
      if (this.action !== "select") return;
      event.stopPropagation();
      this.span(this.from, this.point(event.detail.relatedEvent));
    }, { capture: true });
    this.frame.addEventListener("actionend", () => {
      this.action = null;
      const isBox = this.numbers()?.slice(2).every((each) => each >= LEAST_PIXELS * this.scale);
      if (isBox) this.show();
      else this.write(["", "", "", ""]);
    });
    new ResizeObserver(() => this.show()).observe(this.image);
    this.show();
  }

  // Pixels of the original in one of the page.
  get scale() {
    return Number(this.image.dataset.width) / this.image.clientWidth;
  }

  // Where a pointer is, in pixels of the original: on the picture, or on its edge.
  point({ clientX, clientY }) {
    const place = this.image.getBoundingClientRect();
    const { width, height } = this.image.dataset;
    const within = (value, most) => Math.min(Math.max(Math.round(value * this.scale), 0), most);
    return [within(clientX - place.left, width), within(clientY - place.top, height)];
  }

  span([x, y], [otherX, otherY]) {
    const corner = [Math.min(x, otherX), Math.min(y, otherY)];
    this.write([...corner, Math.abs(x - otherX), Math.abs(y - otherY)]);
  }

  // The box of the fields; null if there is none.
  numbers() {
    const numbers = this.fields.map((field) => field.valueAsNumber);
    return numbers.every(Number.isFinite) && numbers[2] > 0 && numbers[3] > 0 ? numbers : null;
  }

  // From the pointer to the fields: what is outside the picture is no part of the box, and a box
  // that is moved stays inside as it is.
  drawn({ x, y, width, height }) {
    if (!this.action || this.action === "select") return;
    const across = Number(this.image.dataset.width);
    const down = Number(this.image.dataset.height);
    const within = (value, most) => Math.min(Math.max(Math.round(value * this.scale), 0), most);
    if (this.action === "move") {
      const [wide, high] = this.numbers().slice(2);
      this.write([within(x, across - wide), within(y, down - high), wide, high], false);
      return;
    }
    const [left, right] = [within(x, across), within(x + width, across)];
    const [top, bottom] = [within(y, down), within(y + height, down)];
    this.write([left, top, right - left, bottom - top], false);
  }

  write(values, isShown = true) {
    this.fields.forEach((field, at) => {
      field.value = values[at];
    });
    if (isShown) this.show();
    else this.clear.disabled = false;
  }

  // From the fields to the picture.
  show() {
    const numbers = this.numbers();
    this.clear.disabled = !numbers;
    if (!this.selection || !this.image.clientWidth) return;
    if (numbers) {
      const [x, y, width, height] = numbers.map((each) => each / this.scale);
      this.selection.$change(x, y, width, height, NaN, true);
    } else {
      this.selection.$clear();
    }
  }
}

for (const figure of document.querySelectorAll("figure#query-picture, figure[data-box-form]")) {
  const form = document.getElementById(figure.dataset.boxForm ?? "search");
  const image = figure.querySelector("img[data-width][data-height]");
  const fields = NAMES.map((name) => form?.elements[name]);
  if (image && fields.every(Boolean)) new Box(image, fields);
}
