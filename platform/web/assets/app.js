// The little that pages do by themselves: everything here is comfort, and each
// page works without it.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  // "/" goes to the search field, unless somebody is typing.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const field = document.getElementById("search");
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  });

  // Escape closes the person's menu and gives the focus back.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.person[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.person[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // Copy buttons copy the text of the element that they name.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const word = button.querySelector(".word");
    const before = word.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      word.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      word.textContent = "Selected";
    }
    setTimeout(() => { word.textContent = before; }, 2000);
  });

  // The switch of light and dark takes effect at once; the form behind it keeps it.
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-theme-form]");
    if (!form || !event.submitter) return;
    event.preventDefault();
    const theme = event.submitter.value;
    root.dataset.theme = theme;
    for (const other of form.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === event.submitter));
    }
    const body = new FormData(form);
    body.set("theme", theme);
    fetch(form.action, { method: "POST", body: new URLSearchParams(body), redirect: "manual" }).catch(() => form.submit());
  });

  // A form is sent once; coming back by the back button makes it usable again.
  const unlock = () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
  });
  addEventListener("pageshow", unlock);

  // Filters that say nothing stay out of the address.
  document.addEventListener("formdata", (event) => {
    if (!event.target.matches("form[data-filter]")) return;
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });

  // Picking rows opens one action bar that says how many.
  const picked = (form) => {
    const boxes = [...form.elements].filter((box) => box.matches('input[name="pick"]'));
    const count = boxes.filter((box) => box.checked).length;
    const all = [...form.elements].find((box) => box.matches("input[data-pick-all]"));
    if (all) {
      all.checked = count > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
    for (const place of form.querySelectorAll("[data-picked]")) place.textContent = String(count);
    for (const button of form.querySelectorAll("button[data-needs-pick]")) button.disabled = count === 0;
  };
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (!form) return;
    if (event.target.matches("input[data-pick-all]")) {
      for (const box of form.elements) if (box.matches('input[name="pick"]')) box.checked = event.target.checked;
    }
    if (event.target.matches('input[data-pick-all], input[name="pick"]')) picked(form);
  });

  const pickedNow = () => document.querySelectorAll("form#picked").forEach(picked);
  pickedNow();
  document.addEventListener("htmx:after:swap", pickedNow);
  addEventListener("pageshow", pickedNow);

  // The mark of a page that updates by itself: on, or lost and trying again.
  const mark = (event, state) => {
    const place = event.target.closest("[data-live]");
    if (place) place.dataset.live = state;
  };
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (event.detail.connection.attempt > 0) mark(event, "lost");
  });
  document.addEventListener("htmx:sse:after:connection", (event) => mark(event, "on"));
  document.addEventListener("htmx:sse:after:message", (event) => mark(event, "on"));
  document.addEventListener("htmx:sse:error", (event) => mark(event, "lost"));
  document.addEventListener("htmx:sse:close", (event) => mark(event, "off"));
})();
