// Asks for the page again and puts its content in place of the old. What is open stays open.
"use strict";
const EVERY = 2000;
const page = document.getElementById("page");
const stale = document.getElementById("stale");

async function look() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const text = await answer.text();
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("page");
    if (!fresh) throw new Error("no page");
    for (const open of page.querySelectorAll("details[open]")) {
      const same = fresh.querySelector("#" + CSS.escape(open.id));
      if (same) same.open = true;
    }
    page.replaceChildren(...fresh.childNodes);
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);
