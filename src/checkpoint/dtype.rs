//! Element types of tensors in files.
use serde::Serialize;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bytes:literal / $elements:literal;)*) => {
        /// The type of a tensor's elements, as safetensors and GGUF spell it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum DType { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl DType {
            #[cfg(test)]
            pub(super) const ALL: &[DType] = &[$(Self::$variant,)*];

            /// The type of that name in a safetensors header, which has no blocks.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name if $elements == 1 => Some(Self::$variant),)* _ => None }
            }
            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// Elements that are stored together, and the bytes of these.
            pub fn block(self) -> (usize, usize) {
                match self { $(Self::$variant => ($elements, $bytes),)* }
            }
        }
    };
}

dtypes! {
    /// One byte, 0 or 1.
    Bool "BOOL" 1/1;
    /// Unsigned 8-bit.
    U8 "U8" 1/1;
    /// Signed 8-bit.
    I8 "I8" 1/1;
    /// 8-bit float with 5 bits of exponent.
    F8E5M2 "F8_E5M2" 1/1;
    /// 8-bit float with 4 bits of exponent, without infinities.
    F8E4M3 "F8_E4M3" 1/1;
    /// Unsigned 16-bit.
    U16 "U16" 2/1;
    /// Signed 16-bit.
    I16 "I16" 2/1;
    /// Half precision.
    F16 "F16" 2/1;
    /// Brain float.
    BF16 "BF16" 2/1;
    /// Unsigned 32-bit.
    U32 "U32" 4/1;
    /// Signed 32-bit.
    I32 "I32" 4/1;
    /// Single precision.
    F32 "F32" 4/1;
    /// Unsigned 64-bit.
    U64 "U64" 8/1;
    /// Signed 64-bit.
    I64 "I64" 8/1;
    /// Double precision.
    F64 "F64" 8/1;
    /// 4-bit numbers with a factor for each block.
    Q4_0 "Q4_0" 18/32;
    /// 4-bit numbers with a factor and a summand for each block.
    Q4_1 "Q4_1" 20/32;
    /// 5-bit numbers with a factor for each block.
    Q5_0 "Q5_0" 22/32;
    /// 5-bit numbers with a factor and a summand for each block.
    Q5_1 "Q5_1" 24/32;
    /// 8-bit numbers with a factor for each block.
    Q8_0 "Q8_0" 34/32;
    /// 4-bit numbers in blocks of blocks, whose factors and summands are numbers of 6 bits.
    Q4K "Q4_K" 144/256;
    /// The same of 5 bits.
    Q5K "Q5_K" 176/256;
    /// 6-bit numbers in blocks of blocks, whose factors are numbers of 8 bits.
    Q6K "Q6_K" 210/256;
}

impl DType {
    /// It is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F8E5M2 | Self::F8E4M3 | Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Its numbers are stored in blocks, as GGUF has them.
    pub fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// It stands for real numbers.
    pub fn is_numbers(self) -> bool {
        self.is_float() || self.is_quantised()
    }

    /// Bytes of one element; of types in blocks, of one block.
    pub fn size(self) -> usize {
        self.block().1
    }

    /// Elements in so many bytes.
    pub fn elements(self, bytes: usize) -> usize {
        let (elements, size) = self.block();
        bytes / size * elements
    }

    /// The type that weights of this one are widened to, where they are computed with or written
    /// for others: 16 bits hold what fewer bits meant.
    pub fn widened(self) -> DType {
        match self {
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::F16 => Self::F16,
            Self::BF16 => Self::BF16,
            _ if self.is_quantised() => Self::F16,
            _ => Self::F32,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
