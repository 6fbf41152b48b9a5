//# A convolution's window: row r of a product gathers the pixels of x [batch, from_height, from_width, into] under the kernel at its
//# place in [batch, to_height, to_width].
//#   members(..)  members of the uniform struct
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
