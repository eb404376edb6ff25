use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use tokio::sync::Notify;

use super::*;

#[test]
fn a_log_whose_new_name_is_not_safe_is_written_on_and_not_believed() {
    let folder = std::env::temp_dir().join(format!("atoll-thread-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let bounds = Bounds { records: 10, bytes: 1 << 10, outgrows_percent: 300, outgrows_bytes: 1 };
    let state = Arc::new(State {
        safe: AtomicU64::new(7),
        healthy: AtomicBool::new(true),
        bytes: AtomicU64::new(0),
        queued: AtomicUsize::new(0),
        queued_bytes: AtomicUsize::new(0),
        moved: Arc::new(Notify::new()),
    });
    let file = LogFile::create(&folder.join(LOG)).unwrap();
    let mirror = bounds.empty();
    let mut writer = Writer::new(file, folder.clone(), mirror, bounds, Arc::clone(&state));
    writer.rewriting = Some(writer.begin().unwrap());
    writer.replace(|_| Err(io::Error::other("no descriptor is left"))).unwrap();
    assert!(writer.rewriting.is_none());
    assert!(!state.healthy.load(Ordering::Acquire), "nothing becomes safe from here on");
    assert!(!folder.join(NEW).exists());
    writer.file.append(b"written behind it").unwrap();
    let length = fs::metadata(folder.join(LOG)).unwrap().len();
    assert_eq!(length, writer.file.bytes(), "the file that is written is the one with the name");
    let mut group = Group::default();
    group.push(8, Vec::new(), 0);
    state.queued.store(1, Ordering::Relaxed);
    writer.commit(group, &|_| {});
    assert_eq!(state.safe.load(Ordering::Acquire), 7);
    fs::remove_dir_all(&folder).unwrap();
}
