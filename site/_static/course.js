// What only a script can repair. Every page can be read without it.
(() => {
  // A box that scrolls must take the focus, or the keyboard cannot move it; one that does not must not.
  const boxes = ".math, .cell_output .output, .table-wrapper, .highlight pre";
  const fit = () => {
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      if (!scrolls) { for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name); continue; }
      box.tabIndex = 0;
      if (box.matches("pre")) continue;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", box.matches(".math") ? "Formula, scrolls sideways" : "Scrolls sideways");
    }
  };
  fit();
  addEventListener("resize", fit);
  addEventListener("toggle", fit, true);  // a fold was opened

  // Furo opens its drawers by labels, which Tab does not reach (its issues 660 and 940).
  for (const label of document.querySelectorAll("label.nav-overlay-icon, label.toc-overlay-icon")) {
    const box = document.getElementById(label.htmlFor), button = document.createElement("button");
    button.type = "button";
    button.className = label.className;
    button.innerHTML = label.innerHTML;
    button.setAttribute("aria-label", label.htmlFor === "__toc" ? "On this page" : "All pages");
    button.setAttribute("aria-expanded", box.checked);
    button.onclick = () => box.click();
    box.addEventListener("change", () => {
      button.setAttribute("aria-expanded", box.checked);
      if (!button.offsetParent) return;  // the page has two buttons for one drawer; one is shown
      const drawer = document.querySelector(label.htmlFor === "__toc" ? ".toc-drawer" : ".sidebar-drawer");
      (box.checked ? [...drawer.querySelectorAll("a")].find(link => link.offsetParent) : button)?.focus();
    });
    label.replaceWith(button);
  }
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Course");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  addEventListener("keydown", event => {
    if (event.key === "Escape")
      for (const id of ["__navigation", "__toc"]) {
        const box = document.getElementById(id);
        if (box?.checked) box.click();
      }
  });
})();
