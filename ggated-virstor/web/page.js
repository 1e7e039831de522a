// The page stands without this. It takes in what /live sends, which is <main> anew, and
// says whether it still does.
"use strict";
const live = document.getElementById("live");
const said = document.getElementById("said");
let waiting = null;

function show() {
	// Who has marked a command to copy it keeps it.
	if (waiting === null || !getSelection().isCollapsed) return;
	const next = new DOMParser().parseFromString(waiting, "text/html").querySelector("main");
	waiting = null;
	const focus = document.activeElement;
	const at = focus && focus.closest("main a") ? focus.getAttribute("href") : null;
	const before = document.getElementById("verdict").textContent;
	document.querySelector("main").replaceWith(next);
	document.title = next.dataset.title;
	if (at !== null) {
		for (const a of next.querySelectorAll("a")) {
			if (a.getAttribute("href") === at) { a.focus({preventScroll: true}); break; }
		}
	}
	const now = document.getElementById("verdict").textContent;
	if (now !== before) said.textContent = now;
}

const source = new EventSource("/live");
source.onmessage = (e) => {
	waiting = e.data;
	show();
	live.textContent = "Live.";
	live.className = "";
};
source.onerror = () => {
	if (live.textContent === "Live.") {
		live.textContent = "Cut off at " + new Date().toISOString().slice(11, 19) + " UTC: what is below is from then.";
		live.className = "state act";
	}
};
document.addEventListener("selectionchange", show);
