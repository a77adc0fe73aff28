//! Blocks of memory that JavaScript fills and names by handle. The tensors of the CPU device live in them.

use bytemuck::Pod;

use crate::status::Status;

/// A place in a block.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    pub handle: u32,
    pub offset: u32,
}

/// Zeroed memory, 16-byte aligned.
///
/// Aligned here and not by the allocator, which asks itself for more than it gives when told to align: a freed block's
/// place then is too small for the next block of the same size, and memory grows.
pub struct Block {
    units: Vec<u64>,
    start: usize,
    bytes: usize,
}

const UNIT: usize = size_of::<u64>();

impl Block {
    fn zeroed(bytes: usize) -> Option<Block> {
        let count = bytes.div_ceil(UNIT) + 1;
        let mut units = Vec::new();
        units.try_reserve_exact(count).ok()?;
        units.resize(count, 0);
        let address = units.as_ptr().addr();
        Some(Block { start: address.next_multiple_of(16) - address, units, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::must_cast_slice(&self.units)[self.start..][..self.bytes]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::must_cast_slice_mut(&mut self.units)[self.start..][..self.bytes]
    }

    /// All whole values of a type that lie from `offset` on.
    pub fn values_mut<T: Pod>(&mut self, offset: u32) -> Result<&mut [T], Status> {
        let bytes = self.bytes_mut().get_mut(offset as usize..).ok_or(Status::OutOfRange)?;
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::try_cast_slice_mut(&mut bytes[..whole]).map_err(|_| Status::Misaligned)
    }

    fn address(&self) -> u32 {
        self.bytes().as_ptr().addr() as u32
    }
}

enum Slot {
    Free,
    Held(Block),
    /// Being written by the call in progress.
    Lent,
}

/// All blocks; a handle is an index plus one, so that 0 can mean "none".
pub struct Registry {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Registry {
    pub const fn new() -> Registry {
        Registry { slots: Vec::new(), free: Vec::new() }
    }

    /// A new block's handle, or 0 when there is no memory for it.
    pub fn alloc(&mut self, bytes: u32) -> u32 {
        self.try_alloc(bytes).unwrap_or(0)
    }

    fn try_alloc(&mut self, bytes: u32) -> Option<u32> {
        // The lists grow before the block is made, so as not to lie behind it; and freeing must not allocate.
        if self.free.is_empty() {
            self.slots.try_reserve(1).ok()?;
            self.free.try_reserve(self.slots.len() + 1).ok()?;
        }
        let block = Block::zeroed(bytes as usize)?;
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Slot::Held(block);
            return Some(index + 1);
        }
        self.slots.push(Slot::Held(block));
        u32::try_from(self.slots.len()).ok()
    }

    /// Gives the memory back; an unknown handle is ignored.
    pub fn free(&mut self, handle: u32) {
        let index = handle.wrapping_sub(1);
        if let Some(slot @ Slot::Held(_)) = self.slots.get_mut(index as usize) {
            *slot = Slot::Free;
            self.free.push(index);
        }
    }

    /// Where the block lies in linear memory, or 0.
    pub fn address(&self, handle: u32) -> u32 {
        self.get(handle).map_or(0, Block::address)
    }

    pub fn get(&self, handle: u32) -> Result<&Block, Status> {
        match self.slots.get(handle.wrapping_sub(1) as usize) {
            Some(Slot::Held(block)) => Ok(block),
            Some(Slot::Lent) => Err(Status::Aliased),
            Some(Slot::Free) | None => Err(Status::UnknownHandle),
        }
    }

    pub fn get_mut(&mut self, handle: u32) -> Result<&mut Block, Status> {
        match self.slots.get_mut(handle.wrapping_sub(1) as usize) {
            Some(Slot::Held(block)) => Ok(block),
            Some(Slot::Lent) => Err(Status::Aliased),
            Some(Slot::Free) | None => Err(Status::UnknownHandle),
        }
    }

    /// All whole values of a type that lie at a place.
    pub fn values<T: Pod>(&self, at: Location) -> Result<&[T], Status> {
        let bytes = self.get(at.handle)?.bytes().get(at.offset as usize..).ok_or(Status::OutOfRange)?;
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::try_cast_slice(&bytes[..whole]).map_err(|_| Status::Misaligned)
    }

    /// Runs `work` on a block to be written beside all others, which may be read. Reading the lent one is an error.
    pub fn lend(
        &mut self,
        handle: u32,
        work: impl FnOnce(&mut Registry, &mut Block) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.get(handle)?;
        let index = handle as usize - 1;
        let Slot::Held(mut block) = std::mem::replace(&mut self.slots[index], Slot::Lent) else {
            return Err(Status::UnknownHandle);
        };
        let result = work(self, &mut block);
        self.slots[index] = Slot::Held(block);
        result
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}
