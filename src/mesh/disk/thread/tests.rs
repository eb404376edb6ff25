use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use tokio::sync::Notify;

use super::*;

/// A folder of its own, gone with the test, and a log in it.
struct Scene {
    folder: PathBuf,
    state: Arc<State>,
    writer: Writer,
}

impl Scene {
    fn new(name: &str, bounds: Bounds) -> Self {
        let folder =
            std::env::temp_dir().join(format!("atoll-thread-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
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
        let writer = Writer::new(file, folder.clone(), mirror, bounds, Arc::clone(&state));
        Self { folder, state, writer }
    }

    fn commit(&mut self, ticket: u64, entries: Vec<Entry>) {
        let mut group = Group::default();
        group.push(ticket, entries, 0);
        self.state.queued.fetch_add(1, Ordering::Relaxed);
        self.writer.commit(group, &|_| {});
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const BOUNDS: Bounds =
    Bounds { records: 10, bytes: 1 << 10, outgrows_percent: 300, outgrows_bytes: 1 };

#[test]
fn a_log_whose_new_name_is_not_safe_is_written_on_and_not_believed() {
    let mut scene = Scene::new("name", BOUNDS);
    let writer = &mut scene.writer;
    writer.rewriting = Some(writer.begin().unwrap());
    writer.replace(|_| Err(io::Error::other("no descriptor is left"))).unwrap();
    assert!(writer.rewriting.is_none());
    assert!(!scene.state.healthy.load(Ordering::Acquire), "nothing becomes safe from here on");
    assert!(!scene.folder.join(NEW).exists());
    writer.file.append(b"written behind it").unwrap();
    let length = fs::metadata(scene.folder.join(LOG)).unwrap().len();
    assert_eq!(length, writer.file.bytes(), "the file that is written is the one with the name");
    scene.commit(8, Vec::new());
    assert_eq!(scene.state.safe.load(Ordering::Acquire), 7);
}

#[test]
fn a_log_that_is_written_all_the_time_is_rewritten_nevertheless() {
    let mut scene = Scene::new("busy", BOUNDS);
    let vector = || Entry::Vector(Vector::default());
    let mut step = |ticket| {
        scene.commit(ticket, vec![vector()]);
        scene.writer.rewrite().unwrap();
        scene.writer.rewriting.is_some()
    };
    assert!((8..100).any(&mut step), "it never begins");
    assert!((100..104).any(|ticket| !step(ticket)), "it never ends");
    let (_, found) = LogFile::open(&scene.folder.join(LOG), BOUNDS.empty()).unwrap();
    assert!(!matches!(found, super::super::file::Found::Damaged { .. }), "{found:?}");
}
