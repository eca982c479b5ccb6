// The search dialog has no accessible name in Material 9.8.
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");
