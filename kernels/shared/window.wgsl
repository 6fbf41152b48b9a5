//# A convolution's window: row r of a product gathers the pixels of x
//# [batch, from_height, from_width, into] under the kernel at its place in
//# [batch, to_height, to_width].
//#   members(..)  members of the uniform struct
//#   start(row)   the pixel of x under the corner of a row's kernel: an expression
//% macro members(window)
//% if window
  stride: u32,
  kernel_height: u32,
  kernel_width: u32,
  from_height: u32,
  from_width: u32,
  to_height: u32,
  to_width: u32,
//% endif
//% endmacro
//% macro start(row)
(({{ row }} / (sizes.to_height * sizes.to_width) * sizes.from_height
    + {{ row }} / sizes.to_width % sizes.to_height * sizes.stride) * sizes.from_width
    + {{ row }} % sizes.to_width * sizes.stride)
//% endmacro
