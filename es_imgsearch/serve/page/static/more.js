// "Load more": the next page's hits are appended to those that are here.
//
// Markup: ol#hits > li.hit[data-id], among them li.day with headings; a#more, whose address is that
//   of the next page; without one there are no more.  The address of this page stays the search's.
//   Who comes back to it finds as many hits as were there, once `restored` is fulfilled.  window
//   hears "hits-added" after each page.
const hits = document.getElementById("hits");
const more = document.getElementById("more");
const key = `hits ${location.href}`;
let pages = 0;
let loading = null;

const status = document.createElement("p");
status.setAttribute("role", "status");
status.className = "hits-status";

// What is on two pages: a picture, where the index has changed meanwhile, or a heading.
const sign = (item) => item.dataset.id ?? item.textContent.trim();

async function load() {
  const answer = await fetch(more.href, { headers: { accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.querySelectorAll("#hits > li");
  if (!answer.ok || !found.length) throw new Error(`${more.href} has no hits`);
  const known = new Set([...hits.children].map(sign));
  const added = [...found].filter((each) => !known.has(sign(each)));
  hits.append(...added.map((each) => document.adoptNode(each)));
  pages += 1;
  const next = page.getElementById("more");
  if (next) more.href = next.href;
  else more.remove();
  const [count, counted] = [document, page].map((each) => each.getElementById("count"));
  if (count && counted) count.textContent = counted.textContent;
  status.textContent = `${hits.querySelectorAll(".hit").length} hits are shown`
    + (next ? "." : ", which are all.");
  dispatchEvent(new Event("hits-added"));
  return added.find((each) => each.matches(".hit")) ?? null;
}

// Whether there are more hits than those that are here.
export const hasMore = () => Boolean(more?.isConnected);

// The first hit of the next page; rejected if that cannot be loaded.  One at a time: a second call
// while the first is under way loads nothing twice.
export function loadMore() {
  if (loading) return loading;
  more.setAttribute("aria-busy", "true");
  loading = load().finally(() => {
    more.removeAttribute("aria-busy");
    loading = null;
  });
  return loading;
}

async function restore({ pages: wanted, top }) {
  // Without those that cannot be loaded now, the page still has their link.
  while (pages < wanted && hasMore()) if (!(await loadMore().catch(() => null))) return;
  scrollTo(0, top);
}

export let restored = Promise.resolve();

if (hits && more) {
  hits.after(status);
  more.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    try {
      const first = await loadMore();
      first?.querySelector("a.hit-link")?.focus({ preventScroll: true });
    } catch {
      // The page itself says what is wrong.
      location.assign(more.href);
    }
  });
  addEventListener("pagehide", () => {
    sessionStorage.setItem(key, JSON.stringify({ pages, top: scrollY }));
  });
  const [{ type }] = performance.getEntriesByType("navigation");
  const before = JSON.parse(sessionStorage.getItem(key) ?? "null");
  if (before?.pages && type !== "navigate") restored = restore(before);
}
