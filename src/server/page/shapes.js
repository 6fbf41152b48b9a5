// Shapes of regions: boxes, polygons, and masks that were painted.

/** Pixels of a mask's longer side, and of a picture whose size is left to the model. */
const MASK = 512;

export function blank(aspect) {
  const canvas = document.createElement("canvas");
  canvas.width = aspect >= 1 ? MASK : Math.max(8, Math.round(MASK * aspect));
  canvas.height = aspect >= 1 ? Math.max(8, Math.round(MASK / aspect)) : MASK;
  return canvas;
}

export function tinted(mask, colour) {
  const canvas = blank(1);
  canvas.width = mask.width;
  canvas.height = mask.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(mask, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

/** White inside and black outside, in the picture's size, as base64. */
export function sent(mask, width, height) {
  // A mask has the picture's proportions to the pixel; without a size the model's own is a square.
  if (Boolean(width) !== Boolean(height))
    throw new Error("painted regions need both width and height");
  const canvas = blank(1);
  [canvas.width, canvas.height] = [width || MASK, height || MASK];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
  const url = canvas.toDataURL("image/png");
  return url.slice(url.indexOf(",") + 1);
}

export function outline(region) {
  if (region.kind === "polygon") return region.polygon;
  const [left, top, right, bottom] = region.box;
  return [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ];
}

export function middle(region) {
  if (region.kind === "brush") {
    const { width, height } = region.mask;
    const data = region.mask.getContext("2d").getImageData(0, 0, width, height).data;
    let [x, y, count] = [0, 0, 0];
    for (let i = 3; i < data.length; i += 64) {
      if (data[i] > 127) {
        const at = (i - 3) / 4;
        x += at % width;
        y += Math.floor(at / width);
        count += 1;
      }
    }
    return count ? [x / count / width, y / count / height] : [0.5, 0.5];
  }
  const corners = outline(region);
  const mean = (i) => corners.reduce((sum, at) => sum + at[i], 0) / corners.length;
  return [mean(0), mean(1)];
}

export function holds(region, [x, y]) {
  if (region.kind === "brush") {
    const { width, height } = region.mask;
    const at = [
      Math.min(width - 1, Math.floor(x * width)),
      Math.min(height - 1, Math.floor(y * height)),
    ];
    return region.mask.getContext("2d").getImageData(at[0], at[1], 1, 1).data[3] > 127;
  }
  const corners = outline(region);
  let inside = false;
  corners.forEach(([ax, ay], i) => {
    const [bx, by] = corners[(i + 1) % corners.length];
    if (ay <= y !== by <= y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
  });
  return inside;
}
