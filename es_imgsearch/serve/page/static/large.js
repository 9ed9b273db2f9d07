// The hits large, one after the other, with zoom (PhotoSwipe).
//
// Markup: ol#hits > li.hit[data-width][data-height][data-original] > a.hit-link > img.  Without
//   JavaScript, or clicked with Ctrl, the link opens the picture's own page, as the link "Details"
//   in the large view does.  An original that the browser cannot show is shown as its thumbnail.
// The view is a step of the browser's history, whose state has the id of the picture: Back closes
// it, Forward opens it again.  Near the last hit, more of them are loaded.
import { hasMore, loadMore, restored } from "./more.js";
import Lightbox from "./vendor/photoswipe/photoswipe-lightbox.esm.min.js";

const url = (path) => new URL(path, import.meta.url).href;

function styles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = url("./vendor/photoswipe/photoswipe.css");
  document.head.prepend(link);
}

function slide(data, link) {
  const { original, width, height } = link.closest(".hit").dataset;
  const image = link.querySelector("img");
  return {
    ...data,
    src: original ?? image.src,
    width: Number(width) || image.width,
    height: Number(height) || image.height,
    msrc: image.currentSrc || image.src,
    alt: image.alt,
  };
}

function thumbnail(content) {
  const shown = document.createElement("figure");
  shown.className = "pswp__error-msg";
  const small = new Image();
  small.src = content.data.msrc;
  small.alt = content.data.alt;
  const words = document.createElement("figcaption");
  words.textContent = "This browser cannot show the file; this is its thumbnail.";
  shown.append(small, words);
  return shown;
}

// As large as the window has room for; a small picture is enlarged at most three times.
function whole({ panAreaSize, elementSize }) {
  return Math.min(panAreaSize.x / elementSize.x, panAreaSize.y / elementSize.y, 3);
}

// What a screen reader is told.
function describe(element) {
  element.setAttribute("aria-modal", "true");
  element.setAttribute("aria-label", "Pictures, large");
  element.querySelector(".pswp__counter").setAttribute("role", "status");
  element.focus();
}

// What lies under the large view is out of reach, for the Tab key too.
function cover(dialog, isCovered) {
  for (const each of document.body.children) each.inert = isCovered && each !== dialog;
}

// So many hits before the last one, more are loaded: before anybody has seen those.
const AHEAD = 5;

const links = () => [...hits.querySelectorAll("a.hit-link")];
const idOf = (link) => link.closest(".hit").dataset.id;

async function extend(pswp) {
  const known = pswp.getNumItems();
  if (pswp.currIndex + AHEAD < known || !hasMore()) return;
  // What fails is tried again at the next picture.
  if (!(await loadMore().catch(() => null)) || !pswp.element?.isConnected) return;
  pswp.options.dataSource.items = links();
  // Beside the last picture, nothing is shown until now; the counter and the arrows change.
  const [, , right] = pswp.mainScroll.itemHolders;
  if (right && !right.slide) pswp.setContent(right, pswp.currIndex + 1);
  pswp.dispatch("change");
}

const hits = document.getElementById("hits");
if (hits) {
  styles();
  const lightbox = new Lightbox({
    gallery: hits,
    children: "a.hit-link",
    pswpModule: () => import("./vendor/photoswipe/photoswipe.esm.min.js"),
    indexIndicatorSep: " of ",
    // While it appears, it could not be closed.
    showHideAnimationType: "none",
    returnFocus: false,
    bgOpacity: 1,
    initialZoomLevel: whole,
    secondaryZoomLevel: (levels) => Math.max(1, 2 * levels.initial),
    maxZoomLevel: (levels) => Math.max(levels.secondary, 4 * levels.fit),
    loop: false,
  });
  let shown = null;
  lightbox.addFilter("domItemData", (data, element) => slide(data, element));
  lightbox.addFilter("contentErrorElement", (_, content) => thumbnail(content));
  lightbox.on("uiRegister", () => {
    lightbox.pswp.ui.registerElement({
      name: "details",
      tagName: "a",
      isButton: true,
      order: 8,
      html: "Details",
      onInit: (element, pswp) => {
        pswp.on("change", () => {
          element.href = pswp.currSlide.data.element.href;
        });
      },
    });
    lightbox.pswp.ui.registerElement({
      name: "name",
      order: 6,
      onInit: (element, pswp) => {
        pswp.on("change", () => {
          element.textContent = pswp.currSlide.data.alt;
        });
      },
    });
  });
  lightbox.on("afterInit", () => {
    cover(lightbox.pswp.element, true);
    describe(lightbox.pswp.element);
  });
  lightbox.on("change", () => {
    shown = lightbox.pswp.currSlide.data.element;
    step(idOf(shown));
    extend(lightbox.pswp);
  });
  lightbox.on("destroy", () => {
    cover(null, false);
    shown?.focus();
    if (history.state?.large) history.back();
  });
  lightbox.init();
  addEventListener("popstate", follow);
  // After Back from another page, or a reload.
  restored.then(follow);

  // The step of the large view: one, whichever picture is shown.
  function step(large) {
    if (history.state?.large) {
      history.replaceState({ large }, "");
      return;
    }
    // Back would scroll to where the page was, though another picture has the focus now.
    history.scrollRestoration = "manual";
    history.pushState({ large }, "");
  }

  // Show what the step of the history is.
  function follow() {
    const at = links().findIndex((link) => idOf(link) === history.state?.large);
    if (at >= 0) {
      if (!lightbox.pswp) lightbox.loadAndOpen(at, { gallery: hits });
      return;
    }
    lightbox.pswp?.close();
    // Only now has the browser left the place alone.
    requestAnimationFrame(() => {
      if (!history.state?.large) history.scrollRestoration = "auto";
    });
  }
}
