// What the gallery's page does in the browser.  Everything here has a form or link that does the
// same without JavaScript; each module says at its head which markup it builds on.
import "./upload.js";
import "./box.js";
import "./large.js";
import "./select.js";
import "./more.js";
import "./keys.js";
import "./relevance.js";
