// Keyboard, theme, copying and notices. Everything works without this file, less comfortably.
(() => {
  const root = document.documentElement;
  const notice = document.getElementById("notice");

  const say = (text, kind) => {
    const p = document.createElement("p");
    p.className = "say " + kind;
    p.textContent = text;
    notice.replaceChildren(p);
  };

  const toggleTheme = () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("falaj-theme", root.dataset.theme);
    } catch {
      // It holds for this page only.
    }
  };

  const copy = async (button) => {
    if (button.dataset.label === undefined) button.dataset.label = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = notice.dataset.copied;
      setTimeout(() => { button.textContent = button.dataset.label; }, 1200);
    } catch {
      // Without leave to use the clipboard: show the whole value to select it.
      button.textContent = button.dataset.copy;
    }
  };

  const more = (button) => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
  };

  const keys = document.getElementById("keys");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if ("themeToggle" in button.dataset) toggleTheme();
    else if ("copy" in button.dataset) copy(button);
    else if ("more" in button.dataset) more(button);
    else if ("keys" in button.dataset && keys) keys.showModal();
  });

  const go = (path) => { location.href = path; };
  const places = { o: "/", i: "/incidents", r: "/reviews", a: "/audit" };
  let pending = 0;

  document.addEventListener("keydown", (event) => {
    if (!keys || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, dialog, [contenteditable]")) return;
    if (Date.now() - pending < 1200 && places[event.key]) {
      pending = 0;
      go(places[event.key]);
    } else if (event.key === "g") {
      pending = Date.now();
    } else if (event.key === "?") {
      keys.showModal();
    } else if (event.key === "/") {
      event.preventDefault();
      const search = document.getElementById("search");
      if (search) search.focus();
      else go("/audit#search");
    }
  });
  if (location.hash === "#search") document.getElementById("search")?.focus();

  // The server away: say so, and take it back once it answers.
  document.addEventListener("htmx:error", () => say(notice.dataset.offline, "wait"));
  document.addEventListener("htmx:after:request", (event) => {
    const status = event.detail?.ctx?.response?.status;
    if (status && status < 400) notice.replaceChildren();
  });
})();
