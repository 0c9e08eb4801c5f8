// A chart of the console: the last minutes of one figure, drawn as a line; the pointer reads a moment.

import { element, line, say } from "./kit.js";

/** Moments that a chart shows, one a second. */
const SLOTS = 300;
const BOX = { width: 300, height: 72 };
const SVG = "http://www.w3.org/2000/svg";

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** A round number at or above the value, for the top of the axis. */
function roundUp(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Chart {
  #values = [];
  #times = [];
  #pointed = null;
  #show;
  #output = element("output", "", "–");
  #moment = element("small", "", "");
  #top = element("span", "top", "");
  #svg = document.createElementNS(SVG, "svg");
  #area = document.createElementNS(SVG, "path");
  #line = document.createElementNS(SVG, "path");
  #cursor = document.createElementNS(SVG, "line");

  /** `show` turns a value into words. */
  constructor(name, show) {
    this.#show = show;
    const root = element("figure", "sheet chart", "");
    const head = element("figcaption", "", "");
    head.append(element("span", "label", name), this.#output, this.#moment);
    this.#svg.setAttribute("viewBox", `0 0 ${BOX.width} ${BOX.height}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#svg.setAttribute("role", "img");
    this.#svg.setAttribute("aria-label", `${name}, the last five minutes`);
    this.#area.setAttribute("class", "area");
    this.#line.setAttribute("class", "line");
    this.#cursor.setAttribute("class", "cursor");
    this.#cursor.setAttribute("y2", BOX.height);
    this.#svg.append(this.#area, this.#line, this.#cursor);
    this.#svg.onpointermove = (event) => this.#point(event);
    this.#svg.onpointerleave = () => this.#point(null);
    const plot = element("div", "plot", "");
    plot.append(this.#top, this.#svg);
    root.append(head, plot);
    this.root = root;
  }

  /** A further second; null while nothing is known. */
  add(value, at) {
    this.#values.push(value);
    this.#times.push(at);
    if (this.#values.length > SLOTS) {
      this.#values.shift();
      this.#times.shift();
      if (this.#pointed !== null) this.#pointed -= 1;
    }
    this.#draw();
  }

  #point(event) {
    this.#pointed = null;
    if (event) {
      const { left, width } = this.#svg.getBoundingClientRect();
      const back = Math.round((1 - (event.clientX - left) / width) * (SLOTS - 1));
      const at = this.#values.length - 1 - back;
      if (at >= 0 && at < this.#values.length) this.#pointed = at;
    }
    this.#draw();
  }

  #draw() {
    const top = roundUp(Math.max(0, ...this.#values));
    const path = line(this.#values, SLOTS, BOX, top);
    this.#line.setAttribute("d", path);
    // An area closes at the floor, which a line with gaps has not.
    this.#area.setAttribute("d", this.#values.includes(null) || !path ? "" : `${path}V${BOX.height}H${path.slice(1).split(" ")[0]}Z`);
    say(this.#top, this.#show(top));
    const at = this.#pointed ?? this.#values.length - 1;
    const value = this.#values[at];
    say(this.#output, value === null || value === undefined ? "–" : this.#show(value));
    say(this.#moment, this.#pointed === null ? "" : clock.format(this.#times[at]));
    const x = this.#pointed === null ? -1 : BOX.width - ((this.#values.length - 1 - at) * BOX.width) / (SLOTS - 1);
    this.#cursor.setAttribute("x1", x);
    this.#cursor.setAttribute("x2", x);
  }
}
