const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function describe(view, x, y) {
  const place = y * view.width + x;
  const told = view.layers.map((layer) => {
    const id = bytes(layer.ids)[place];
    const sure = layer.confidence ? `, confidence ${(bytes(layer.confidence)[place] / 255).toFixed(2)}` : "";
    return `${layer.title}: ${layer.names[id] ?? "ignored"} (${id})${sure}`;
  });
  return [`x ${x}, y ${y}`, ...told].join("  ·  ");
}

function render({ model, el }) {
  const told = document.createElement("div");
  const grid = document.createElement("div");
  told.className = "dlv3p-under-pointer";
  told.style.cssText = "min-height: 1.5em; font-variant-numeric: tabular-nums";
  grid.style.cssText = "display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 8px";
  el.append(told, grid);
  const hover = (event) => {
    const view = model.get("view");
    const box = event.target.getBoundingClientRect();
    const at = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
    const x = at((event.clientX - box.left) / box.width, view.width);
    const y = at((event.clientY - box.top) / box.height, view.height);
    told.textContent = describe(view, x, y);
  };
  const addPanel = () => {
    const figure = document.createElement("figure");
    const image = document.createElement("img");
    figure.style.margin = "0";
    image.style.cssText = "width: 100%; display: block; cursor: crosshair";
    image.addEventListener("pointermove", hover);
    figure.append(document.createElement("figcaption"), image);
    grid.append(figure);
  };
  const draw = () => {  // pictures change in place, so that nothing flickers or moves away from under the pointer
    const panels = model.get("view").panels ?? [];
    while (grid.children.length > panels.length) grid.lastChild.remove();
    while (grid.children.length < panels.length) addPanel();
    panels.forEach((panel, place) => {
      const [caption, image] = grid.children[place].children;
      URL.revokeObjectURL(image.src);
      caption.textContent = image.alt = panel.title;
      image.src = URL.createObjectURL(new Blob([bytes(panel.png)], { type: "image/png" }));
    });
  };
  model.on("change:view", draw);
  draw();
}

export default { render };
