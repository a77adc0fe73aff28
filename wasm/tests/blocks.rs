//! The registry of blocks.

use kvasir_wasm::block::Registry;
use kvasir_wasm::status::Status;

#[test]
fn blocks_are_zeroed_aligned_and_apart() {
    let mut blocks = Registry::new();
    for bytes in [0, 1, 15, 16, 17, 1000, 1 << 20] {
        let handle = blocks.alloc(bytes);
        assert_ne!(handle, 0);
        assert_eq!(blocks.address(handle) % 16, 0);
        let block = blocks.get_mut(handle).unwrap();
        assert_eq!(block.bytes(), vec![0; bytes as usize]);
        block.bytes_mut().fill(0xff);
        blocks.free(handle);
    }
}

#[test]
fn handles_are_reused_and_stale_ones_refused() {
    let mut blocks = Registry::new();
    let handles: Vec<u32> = (0..5).map(|_| blocks.alloc(8)).collect();
    assert_eq!(handles, [1, 2, 3, 4, 5]);
    blocks.free(2);
    blocks.free(2);
    assert_eq!(blocks.get(2).err(), Some(Status::UnknownHandle));
    assert_eq!(blocks.address(2), 0);
    assert_eq!((blocks.alloc(8), blocks.alloc(8)), (2, 6), "freed twice, given out once");
    for unknown in [0, 7, u32::MAX] {
        assert_eq!(blocks.get(unknown).err(), Some(Status::UnknownHandle));
        blocks.free(unknown);
    }
}

#[test]
fn a_lent_block_cannot_be_read_and_comes_back() {
    let mut blocks = Registry::new();
    let (a, b) = (blocks.alloc(4), blocks.alloc(4));
    let result = blocks.lend(a, |blocks, block| {
        block.bytes_mut()[0] = 1;
        assert_eq!(blocks.get(a).err(), Some(Status::Aliased));
        blocks.free(a);
        assert!(blocks.get(b).is_ok());
        Err(Status::OutOfRange)
    });
    assert_eq!(result, Err(Status::OutOfRange));
    assert_eq!(blocks.get(a).unwrap().bytes()[0], 1);
}
