// Draws a panel the way Kibana's plug-in for Vega does (vega_parser.ts, vega_base_view.js):
// expressions are interpreted, since its policy forbids code made from text; images come from
// anywhere and without CORS; the panel, not the specification, says how large the view is.
"use strict";

const MARK = "#54b399";
const LABEL = "#343741";
// What Kibana sets where a specification says nothing.
const DEFAULTS = {
  arc: { fill: MARK },
  area: { fill: MARK, fillOpacity: 0.2 },
  line: { stroke: MARK },
  path: { stroke: MARK },
  rect: { fill: MARK },
  rule: { stroke: MARK },
  shape: { stroke: MARK },
  symbol: { fill: MARK },
  trail: { fill: MARK },
  style: {
    "guide-label": { fill: LABEL },
    "guide-title": { fill: LABEL },
    "group-title": { fill: LABEL },
  },
  background: "transparent",
};

let view;
// What tests read: what Vega complains of, the last tooltip, the filters that clicks added.
const told = { complaints: [], tooltip: null, filters: [] };

vega.expressionFunction("kibanaAddFilter", function (query, index, alias) {
  this.context.dataflow.runAfter(() => told.filters.push({ query, index, alias }));
});

async function draw(spec, width, height) {
  // vega_parser.ts hands these options of a specification on.
  const loader = vega.loader(spec.usermeta?.embedOptions?.loader);
  const sanitize = loader.sanitize.bind(loader);
  loader.sanitize = async (uri, options) => ({
    ...(await sanitize(uri, options)),
    crossOrigin: null,
  });
  const logger = vega.logger(vega.Warn);
  for (const level of ["warn", "error"]) {
    logger[level] = (...words) => {
      told.complaints.push(`${level}: ${words.join(" ")}`);
      return logger;
    };
  }
  view = new vega.View(vega.parse(spec, DEFAULTS, { ast: true }), {
    expr: vega.expressionInterpreter,
    renderer: "canvas",
    loader,
    logger,
  });
  view.tooltip((handler, event, item, value) => {
    told.tooltip = value;
  });
  view.width(width).height(height);
  view.initialize("#panel").hover();
  await view.runAsync();
}

/** Later, on the page's own account: the policy does not bind what a debugger calls. */
const byItself = (action, ...given) =>
  new Promise((done, failed) => setTimeout(() => action(...given).then(done, failed)));

async function resize(width, height) {
  await view.width(width).height(height).runAsync();
}

function* items(mark, x, y) {
  for (const item of mark.items) {
    yield { mark, item, x, y };
    for (const inner of item.items || []) {
      yield* items(inner, x + (item.x || 0), y + (item.y || 0));
    }
  }
}

const isLoaded = (item) => Boolean(item.image && item.image.complete && item.image.naturalWidth);

/** Everything that is drawn, with its place on the page. */
function marks() {
  const [left, top] = view.origin();
  const padding = view.padding();
  const root = view.scenegraph().root;
  return [...items(root, left + padding.left, top + padding.top)].map(({ mark, item, x, y }) => ({
    type: mark.marktype,
    name: mark.name || null,
    left: x + item.bounds.x1,
    top: y + item.bounds.y1,
    right: x + item.bounds.x2,
    bottom: y + item.bounds.y2,
    text: item.text || null,
    url: item.url || null,
    link: item.href || null,
    is_loaded: mark.marktype === "image" ? isLoaded(item) : null,
    datum: mark.name === "tile" ? item.datum : null,
  }));
}

/** Until every picture is there, or the time is over; and drawn, two frames later. */
async function settle(milliseconds) {
  const end = performance.now() + milliseconds;
  while (marks().some((each) => each.is_loaded === false) && performance.now() < end) {
    await new Promise((done) => setTimeout(done, 10));
  }
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}
