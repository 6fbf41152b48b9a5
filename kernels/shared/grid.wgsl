//# One invocation for every vector of an output that may carry zeros around its feature map.
//#   members(padded)  members of the uniform struct; `rows` counts the rows of the output, padding
//#                    included
//#   place(padded)    statements: `i` is the output's vector, `row` and `channel` its place before
//#                    padding; a vector of padding is stored here and the invocation ends
//% macro members(padded)
  channels: u32,
  rows: u32,
//% if padded
  height: u32,
  width: u32,
  padded_height: u32,
  padded_width: u32,
  top: u32,
  left: u32,
//% endif
//% endmacro
//% macro place(padded, V)
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.channels) { return; }
  let channel = i % sizes.channels;
//% if padded
  let at = i / sizes.channels;
  let px = at % sizes.padded_width;
  let py = at / sizes.padded_width % sizes.padded_height;
  if (px < sizes.left || px >= sizes.left + sizes.width || py < sizes.top
    || py >= sizes.top + sizes.height) {
    y[i] = {{ V }}();
    return;
  }
  let row = (at / sizes.padded_width / sizes.padded_height * sizes.height + py - sizes.top)
    * sizes.width + px - sizes.left;
//% else
  let row = i / sizes.channels;
//% endif
//% endmacro
