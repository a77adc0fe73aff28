//! What an export answers: 0, or why it did nothing. Malformed calls get a status and never a trap, because a trap
//! would leave the instance, and every tensor in it, unusable.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Ok = 0,
    UnknownHandle = 1,
    /// A slice reaches beyond its block.
    OutOfRange = 2,
    BadDtype = 3,
    /// A byte offset is not a multiple of the element size.
    Misaligned = 4,
    /// A block that is written is also read, or written twice.
    Aliased = 5,
    /// A count or a size in the descriptor makes no sense.
    BadDescriptor = 6,
    OutOfMemory = 7,
}

impl From<Result<(), Status>> for Status {
    fn from(result: Result<(), Status>) -> Status {
        result.err().unwrap_or(Status::Ok)
    }
}
