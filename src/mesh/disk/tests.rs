use std::time::Instant;

use super::*;
use crate::replication::{
    Identity, Incarnation, Mark, Record, Retired, Scope, Source, Standing, State as Life, Vector,
    WitnessSet,
};

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // In memory where there is such a place: thousands of syncs are slow on a busy disk.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = place.join(format!("atoll-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join(thread::LOG)
    }

    fn open(&self) -> Opened {
        self.within(BOUNDS)
    }

    fn within(&self, bounds: Bounds) -> Opened {
        Disk::open(&self.0, bounds, Arc::new(Notify::new()), |_| {})
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BOUNDS: Bounds =
    Bounds { records: 1_000, bytes: 1 << 20, outgrows_percent: 300, outgrows_bytes: 1 << 20 };

fn source() -> Source {
    Source { incarnation: Incarnation(7), node: "fra-1".into() }
}

/// The first records of a source, one after the other.
fn records(most: u64) -> Vec<Arc<Record>> {
    let mut before = 0;
    let record = |sequence| {
        let record = Record {
            identity: Identity { source: source(), sequence },
            before,
            scope: Scope::Site("s".into()),
            receipt: false,
            payload: sequence.to_be_bytes().into(),
        };
        before = record.after();
        Arc::new(record)
    };
    (1..=most).map(record).collect()
}

fn life(count: u64) -> Entry {
    Entry::State(Life {
        set: WitnessSet { number: 1, members: vec!["fra-1".into()], joining: None },
        generation: 3,
        standing: Standing { count, incarnation: Incarnation(9) },
        known: [("nyc-1".into(), Standing { count: 1, incarnation: Incarnation(2) })].into(),
    })
}

fn as_entries(records: &[Arc<Record>]) -> Vec<Entry> {
    records.iter().cloned().map(Entry::Record).collect()
}

fn wait(what: &str, mut is: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test waits by the real clock")]
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

fn write_all(disk: &Disk, writes: Vec<Vec<Entry>>) {
    let mut last = 0;
    for entries in writes {
        last += 1;
        disk.write(last, entries);
    }
    wait("everything is safe", || disk.safe() == last);
}

fn saved(start: Start) -> Saved {
    match start {
        Start::Saved(saved) => *saved,
        Start::Forgotten => panic!("the log was forgotten"),
    }
}

/// A log with a life and records, a frame each.
fn written(folder: &Folder, most: u64) {
    let opened = folder.open();
    assert!(matches!(opened.start, Start::Forgotten) && opened.trouble.is_none());
    let records = records(most);
    let frames = records.chunks(1).map(as_entries);
    let writes = std::iter::once(vec![life(1), Entry::Vector(Vector::default())]).chain(frames);
    write_all(&opened.disk.unwrap(), writes.collect());
}

#[test]
fn what_was_safe_is_there_again() {
    let folder = Folder::new("again");
    written(&folder, 5);
    let opened = folder.open();
    let saved = saved(opened.start);
    assert_eq!(saved.state.unwrap().standing.count, 1);
    assert_eq!(saved.vector.mark(&source()).sequence, 5);
    assert_eq!(saved.log.len(), 5);
}

#[test]
fn who_the_witnesses_are_is_kept_by_a_node_that_is_none() {
    let folder = Folder::new("set");
    written(&folder, 3);
    let newer = WitnessSet { number: 3, members: vec!["nyc-1".into()], joining: None };
    let disk = folder.open().disk.unwrap();
    write_all(&disk, vec![vec![Entry::Set(newer.clone())]]);
    let started = saved(disk.start_over());
    assert_eq!((started.set(), started.state.is_some()), (Some(&newer), false));
    drop(disk);
    let opened = saved(folder.open().start);
    assert_eq!(opened.set(), Some(&newer));
    let (entries, _) = thread::taken_apart(&opened);
    assert_eq!(entries.first(), Some(&Entry::Set(newer)), "and by a file that takes its place");
}

#[test]
fn a_log_cut_anywhere_has_what_was_whole_and_can_be_written_on() {
    let folder = Folder::new("cut");
    written(&folder, 3);
    let whole = fs::read(folder.log()).unwrap();
    let mut seen = Vec::new();
    for length in 0..=whole.len() {
        fs::write(folder.log(), &whole[..length]).unwrap();
        let opened = folder.open();
        assert!(opened.trouble.is_none(), "{length}: {:?}", opened.trouble);
        let upto = match opened.start {
            Start::Saved(saved) => saved.vector.mark(&source()).sequence + 1,
            Start::Forgotten => 0,
        };
        seen.push(upto);
        let disk = opened.disk.unwrap();
        write_all(&disk, vec![vec![life(2)]]);
        drop(disk);
        assert_eq!(saved(folder.open().start).state.unwrap().standing.count, 2, "{length}");
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_log_with_any_bit_changed_counts_as_lost() {
    let folder = Folder::new("flip");
    written(&folder, 2);
    let whole = fs::read(folder.log()).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(folder.log(), &bytes).unwrap();
        let (_, found) = LogFile::open(&folder.log(), BOUNDS.empty()).unwrap();
        assert!(matches!(found, Found::Damaged { .. }), "bit {bit}: {found:?}");
        assert_eq!(fs::read(folder.log()).unwrap(), bytes, "it is left as it was");
    }
    let opened = folder.open();
    assert!(matches!(opened.start, Start::Forgotten));
    assert!(matches!(opened.trouble, Some(Trouble::Damaged { .. })));
    assert!(opened.disk.is_some(), "a new one is begun");
    assert_eq!(fs::read(folder.0.join("witness.log.damaged")).unwrap().len(), whole.len());
}

#[test]
fn one_process_has_the_log_at_a_time() {
    let folder = Folder::new("twice");
    written(&folder, 1);
    let first = folder.open();
    let second = folder.open();
    assert!(second.disk.is_none() && matches!(second.start, Start::Forgotten));
    assert!(matches!(second.trouble, Some(Trouble::Locked)));
    drop(first);
    assert_eq!(saved(folder.open().start).log.len(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let folder = Folder::new("none");
    fs::write(&folder.0, "a file").unwrap();
    let opened = folder.open();
    assert!(opened.disk.is_none() && matches!(opened.trouble, Some(Trouble::Disk(_))));
    fs::remove_file(&folder.0).unwrap();
}

#[test]
fn a_log_that_has_outgrown_what_is_kept_is_rewritten_and_amounts_to_the_same() {
    let folder = Folder::new("rewrite");
    let bounds = Bounds { records: 50, bytes: 1 << 20, outgrows_percent: 100, outgrows_bytes: 64 };
    let disk = folder.within(bounds).disk.unwrap();
    let records = records(2_000);
    disk.write(1, vec![life(1), Entry::Vector(Vector::new(Retired { count: 4, draw: 1 }))]);
    for (ticket, record) in (2..).zip(&records) {
        disk.write(ticket, vec![Entry::Record(Arc::clone(record))]);
        if ticket % 100 == 0 {
            wait("written", || disk.safe() == ticket);
        }
    }
    wait("the file is small again", || disk.queued() == 0 && disk.bytes() < 40_000);
    drop(disk);
    let saved = saved(folder.within(bounds).start);
    let last = records.last().unwrap();
    let mark = Mark { sequence: 2_000, chain: last.after() };
    assert_eq!((saved.vector.mark(&source()), saved.log.len()), (mark, 50));
    assert_eq!(saved.vector.retired().count, 4);
    assert_eq!(saved.state.unwrap().generation, 3);
    assert!(!folder.0.join(thread::NEW).exists());
}

#[test]
fn what_is_taken_apart_amounts_to_the_same() {
    let mut whole = Saved::new(3, 1 << 20);
    let mut vector = Vector::new(Retired { count: 1, draw: 5 });
    let other = Source { incarnation: Incarnation(1), node: "x".into() };
    vector.set(&other, Mark { sequence: 8, chain: 8 });
    [life(1), Entry::Vector(vector)].into_iter().for_each(|entry| whole.replay(entry));
    as_entries(&records(5)).into_iter().for_each(|entry| whole.replay(entry));
    let (base, left) = thread::taken_apart(&whole);
    let mut again = Saved::new(3, 1 << 20);
    base.into_iter().for_each(|entry| again.replay(entry));
    left.into_iter().for_each(|record| again.replay(Entry::Record(record)));
    assert_eq!(again.vector, whole.vector);
    assert_eq!(again.state, whole.state);
    let kept = |saved: &Saved| saved.log.of(&source()).cloned().collect::<Vec<_>>();
    assert_eq!(kept(&again), kept(&whole));
    assert_eq!(kept(&whole).len(), 3);
}

#[test]
fn a_node_that_starts_over_finds_what_it_had_handed_over() {
    let folder = Folder::new("over");
    let disk = folder.open().disk.unwrap();
    assert!(matches!(disk.start_over(), Start::Forgotten), "nothing was ever written");
    disk.write(1, vec![life(1)]);
    disk.write(2, as_entries(&records(4)));
    assert_eq!(saved(disk.start_over()).vector.mark(&source()).sequence, 4);
    assert_eq!(disk.safe(), 0, "tickets begin anew");
    disk.write(1, vec![life(2)]);
    wait("safe", || disk.safe() == 1);
}

#[test]
fn after_a_write_that_failed_nothing_is_safe_any_more() {
    let folder = Folder::new("fail");
    let disk = folder.open().disk.unwrap();
    write_all(&disk, vec![vec![life(1)]]);
    disk.state.fail("as if the disk had said no");
    disk.write(2, as_entries(&records(1)));
    wait("it is taken off the queue", || disk.queued() == 0);
    assert_eq!((disk.safe(), disk.is_healthy()), (1, false));
    assert!(matches!(disk.start_over(), Start::Forgotten));
    drop(disk);
    // Nobody waits for the thread of a disk that has failed; it lets go of the lock when it ends.
    let mut opened = folder.open();
    wait("the lock is free", || {
        let locked = matches!(opened.trouble, Some(Trouble::Locked));
        if locked {
            opened = folder.open();
        }
        !locked
    });
    assert_eq!(saved(opened.start).vector.mark(&source()).sequence, 0);
}
