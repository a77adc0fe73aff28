//! The element types of the contract, by the numbers that JavaScript passes.

use crate::status::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32 = 0,
    F16 = 1,
    Bf16 = 2,
    E4m3 = 3,
    E5m2 = 4,
    /// What JavaScript numbers are: a source of conversions only.
    F64 = 5,
}

impl Dtype {
    /// Any dtype, for the source of a conversion.
    pub fn source(code: u32) -> Result<Dtype, Status> {
        match code {
            5 => Ok(Dtype::F64),
            _ => Dtype::storage(code),
        }
    }

    /// A dtype that tensors can have.
    pub fn storage(code: u32) -> Result<Dtype, Status> {
        match code {
            0 => Ok(Dtype::F32),
            1 => Ok(Dtype::F16),
            2 => Ok(Dtype::Bf16),
            3 => Ok(Dtype::E4m3),
            4 => Ok(Dtype::E5m2),
            _ => Err(Status::BadDtype),
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::E4m3 | Dtype::E5m2 => 1,
        }
    }
}
