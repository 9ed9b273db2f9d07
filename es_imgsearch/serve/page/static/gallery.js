// What the page can do with scripts; without them each part is a form or a link.
