// Builds queries as Kibana does, with its own builder: a line of JSON in, a line of JSON out.
//   {"view": {title, fields}, "queries": [{language, query}], "filters": [...],
//    "chosen": {field: [values]}, "time": {field, gte, lte}}
// A list of values is what a control chose: a phrase filter, or phrases for several values.
"use strict";

const { createInterface } = require("node:readline");
const {
  buildEsQuery,
  buildPhraseFilter,
  buildPhrasesFilter,
  buildRangeFilter,
} = require("@cybernetex/kbn-es-query");

// Kibana's defaults of query:allowLeadingWildcards, query:queryString:options and
// courier:ignoreFilterIfFieldNotInIndex.
const CONFIG = {
  allowLeadingWildcards: true,
  queryStringOptions: { analyze_wildcard: true },
  ignoreFilterIfFieldNotInIndex: false,
  dateFormatTZ: "UTC",
};

function chosenFilters(view, chosen) {
  return Object.entries(chosen || {}).map(([name, values]) => {
    const field = view.fields.find((each) => each.name === name) || { name, type: "string" };
    return values.length === 1
      ? buildPhraseFilter(field, values[0], view)
      : buildPhrasesFilter(field, values, view);
  });
}

function timeFilters(view, time) {
  if (!time) return [];
  const range = { gte: time.gte, lte: time.lte, format: "strict_date_optional_time" };
  return [buildRangeFilter({ name: time.field, type: "date" }, range, view)];
}

function build({ view, queries, filters, chosen, time }) {
  const all = [...(filters || []), ...chosenFilters(view, chosen), ...timeFilters(view, time)];
  return buildEsQuery(view, queries || [], all, CONFIG);
}

createInterface({ input: process.stdin }).on("line", (line) => {
  let answer;
  try {
    answer = { query: build(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error.message || error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
