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
  const draw = () => {
    grid.querySelectorAll("img").forEach((image) => URL.revokeObjectURL(image.src));
    grid.replaceChildren(...(model.get("view").panels ?? []).map((panel) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const image = document.createElement("img");
      figure.style.margin = "0";
      caption.textContent = image.alt = panel.title;
      image.style.cssText = "width: 100%; display: block; cursor: crosshair";
      image.src = URL.createObjectURL(new Blob([bytes(panel.png)], { type: "image/png" }));
      image.addEventListener("pointermove", hover);
      figure.append(caption, image);
      return figure;
    }));
  };
  model.on("change:view", draw);
  draw();
}

export default { render };
