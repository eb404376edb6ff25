use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::file::{Log, read_lines};
use super::*;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("atoll-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("audit.log")
    }

    fn log(&self, bytes: u64) -> Log {
        let settings = AuditFile { path: self.path(), bytes, files: 2 };
        let signature = Signature { node: "n1".to_owned(), incarnation: "00ff".to_owned() };
        Log::new(settings, signature)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn act(number: u64) -> Act {
    Act::new("reset", "deploy", IpAddr::from([192, 0, 2, 1]), Now::at(number)).with("epoch", number)
}

fn fill(log: &mut Log, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        log.append(&act(number)).unwrap();
    }
}

/// Lines of the chain in these files, and every break.
fn read(paths: &[&Path]) -> (Chain, Vec<Broken>) {
    let (mut chain, mut broken) = (Chain::default(), Vec::new());
    for path in paths {
        broken.extend(chain.next_file().err());
        read_lines(&fs::File::open(path).unwrap(), |raw, ended| {
            broken.extend(chain.take(raw, ended).err());
        })
        .unwrap();
    }
    (chain, broken)
}

fn of_text(text: &str) -> Vec<Broken> {
    let (mut chain, mut broken) = (Chain::default(), Vec::new());
    for piece in text.split_inclusive('\n') {
        let raw = piece.strip_suffix('\n');
        broken.extend(chain.take(raw.unwrap_or(piece).as_bytes(), raw.is_some()).err());
    }
    broken.extend(chain.next_file().err());
    broken
}

#[test]
fn a_line_says_who_did_what_and_follows_the_one_before() {
    let folder = Folder::new("line");
    let mut log = folder.log(1 << 20);
    fill(&mut log, 1..=2);
    let selectors = [
        Selector::Tag { site: "shop".into(), tag: "a\u{1b}\r\nb".into() },
        Selector::Tag { site: "blog".into(), tag: "a\u{1b}\r\nb".into() },
        Selector::Url { site: "shop".into(), host: "shop.example".into(), target: "/?q".into() },
        Selector::Site { site: "shop".into() },
        Selector::Site { site: "blog".into() },
        Selector::All,
    ];
    let from = "::ffff:192.0.2.7".parse().unwrap();
    let purge = Act::purge("ci", from, (&selectors, Strength::Soft), "n1.00ff.3", Now::at(3));
    log.append(&purge).unwrap();
    let text = folder.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "control characters end no line");
    assert_eq!(lines[0]["prev"], "0".repeat(64));
    assert_eq!(lines[1]["prev"], lines[0]["hash"]);
    assert_eq!(lines[2]["prev"], lines[1]["hash"]);
    let mut told = lines[2].clone();
    told.as_object_mut().unwrap().retain(|name, _| !matches!(&**name, "prev" | "hash"));
    let expected = json!({
        "seq": 3, "time": "1970-01-01T00:00:03.000Z", "node": "n1", "incarnation": "00ff",
        "act": "purge", "token": "ci", "from": "192.0.2.7", "outcome": "done",
        "what": {"id": "n1.00ff.3", "mode": "soft", "selectors": [
            {"sites": ["shop", "blog"], "tags": ["a\u{1b}\r\nb"]},
            {"sites": ["shop"], "urls": ["http://shop.example/?q"]},
            {"sites": ["shop", "blog"], "all": true},
            {"all": true},
        ]},
    });
    assert_eq!(told, expected);
    let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(read(&[&folder.path()]).1, []);
}

#[test]
fn the_chain_goes_on_over_restarts_and_rotation() {
    let folder = Folder::new("rotation");
    for begin in 0..10 {
        let mut log = folder.log(2000);
        fill(&mut log, begin * 3 + 1..=begin * 3 + 3);
    }
    let (first, second) = (older(&folder.path(), 1), older(&folder.path(), 2));
    assert!(!older(&folder.path(), 3).exists(), "two older files are kept");
    let (chain, broken) = read(&[&second, &first, &folder.path()]);
    assert_eq!(broken, []);
    assert_eq!(chain.last().unwrap().0, 30);
    assert!(chain.lines() < 30 && chain.first().unwrap().0 > 1);
    for path in [&first, &second] {
        assert!(fs::metadata(path).unwrap().len() <= 2000);
    }
    // The file was moved away, and a restart finds only the one before.
    fs::remove_file(folder.path()).unwrap();
    let newest = read(&[&first]).0.last().unwrap().0;
    fill(&mut folder.log(2000), 1..=1);
    assert_eq!(read(&[&folder.path()]).0.last().unwrap().0, newest + 1);
}

#[test]
fn every_alteration_shows_where_it_is() {
    let folder = Folder::new("alter");
    fill(&mut folder.log(1 << 20), 1..=5);
    let text = folder.text();
    let lines: Vec<&str> = text.lines().collect();
    let join = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(of_text(&text), []);
    assert_eq!(of_text(&join(&lines[2..])), [], "the older ones may be elsewhere");
    let rows = [
        (text.replacen("\"epoch\":3", "\"epoch\":9", 1), Broken::Altered { line: 3 }),
        (text.replacen("\"epoch\":5", "\"epoch\":9", 1), Broken::Altered { line: 5 }),
        (text.replacen("\"seq\":3", "\"seq\":3 ", 1), Broken::Altered { line: 3 }),
        (text.replacen('\n', "\n\n", 2), Broken::Altered { line: 2 }),
        (
            join(&[lines[0], lines[1], lines[3], lines[4]]),
            Broken::Unlinked { line: 3, expected: 3, found: 4 },
        ),
        (
            join(&[lines[0], lines[2], lines[1], lines[3], lines[4]]),
            Broken::Unlinked { line: 2, expected: 2, found: 3 },
        ),
        (
            join(&[lines[0], lines[0], lines[1]]),
            Broken::Unlinked { line: 2, expected: 2, found: 1 },
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(of_text(&text).first(), Some(&expected), "{text}");
    }
    // A line that was made to measure has another hash than the one that follows expects.
    let other = Folder::new("alter-other");
    fill(&mut other.log(1 << 20), 1..=2);
    fill(&mut other.log(1 << 20), 9..=9);
    let forged = other.text();
    let forged = forged.lines().nth(2).unwrap();
    assert_eq!(
        of_text(&join(&[lines[0], lines[1], forged, lines[3]])),
        [Broken::Unlinked { line: 4, expected: 4, found: 4 }]
    );
}

#[test]
fn a_torn_line_is_told_by_the_next_one() {
    let folder = Folder::new("torn");
    fill(&mut folder.log(1 << 20), 1..=3);
    let text = folder.text();
    let whole = text.len();
    for cut in [1, 2, 40, 200] {
        fs::write(folder.path(), &text[..whole - cut]).unwrap();
        fill(&mut folder.log(100), 4..=4);
        let (chain, broken) = read(&[&folder.path()]);
        assert_eq!(broken, [], "cut by {cut}");
        let last: Value = serde_json::from_str(folder.text().lines().last().unwrap()).unwrap();
        // Without its newline only, the line is whole.
        let torn = u64::from(cut > 1);
        assert_eq!((chain.torn(), chain.last().unwrap().0), (torn, 4 - torn), "cut by {cut}");
        assert_eq!(last.get("torn").is_some(), cut > 1);
        let altered = folder.text().replace("\"torn\":", "\"torn\":1");
        assert_eq!(of_text(&altered).is_empty(), cut == 1);
    }
    fs::write(folder.path(), &text[..whole - 9]).unwrap();
    assert_eq!(of_text(&text[..whole - 9]).len(), 1);
    assert!(read(&[&folder.path()]).0.loose() > 0, "a write under way is no break");
}

#[test]
fn what_could_not_be_written_is_told_by_the_next_line() {
    let folder = Folder::new("missing");
    let mut log = folder.log(1 << 20);
    fill(&mut log, 1..=1);
    fs::remove_dir_all(&folder.0).unwrap();
    for _ in 0..2 {
        assert!(log.append(&act(2)).is_err());
        log.missed(1);
    }
    fs::create_dir_all(&folder.0).unwrap();
    fill(&mut log, 3..=4);
    let (chain, broken) = read(&[&folder.path()]);
    assert_eq!((broken, chain.missing()), (vec![], 2));
    assert_eq!(chain.first().unwrap().0, 2, "the chain goes on where it was");
    assert!(folder.log(1).append(&act(5)).is_ok());
    fs::remove_file(folder.path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
    assert!(folder.log(1 << 20).append(&act(1)).is_err(), "a folder is no log");
}

#[test]
fn two_processes_write_one_chain() {
    let folder = Folder::new("two");
    let (mut one, mut other) = (folder.log(3000), folder.log(3000));
    for number in (1..=20).step_by(2) {
        fill(&mut one, number..=number);
        fill(&mut other, number + 1..=number + 1);
    }
    let (chain, broken) = read(&[&older(&folder.path(), 1), &folder.path()]);
    assert_eq!((broken, chain.last().unwrap().0), (vec![], 20));
}

#[test]
fn lines_that_were_cut_off_under_a_running_node_show() {
    let folder = Folder::new("cut");
    let mut log = folder.log(1 << 20);
    fill(&mut log, 1..=4);
    let text = folder.text();
    let two: usize = text.split_inclusive('\n').take(2).map(str::len).sum();
    fs::write(folder.path(), &text[..two]).unwrap();
    fill(&mut log, 5..=5);
    let broken = read(&[&folder.path()]).1;
    assert_eq!(broken, [Broken::Unlinked { line: 3, expected: 3, found: 5 }]);
}

#[tokio::test]
async fn the_writer_answers_when_the_line_is_there() {
    let folder = Folder::new("writer");
    let config = crate::telemetry::test_config();
    let metrics = Metrics::new(&config);
    let settings = AuditFile { path: folder.path(), bytes: 1 << 20, files: 1 };
    let signature = Signature { node: "n1".to_owned(), incarnation: "00ff".to_owned() };
    let metrics_too = Arc::clone(&metrics);
    let start = || {
        let (settings, signature) = (Some(&settings), signature.clone());
        Audit::start(settings, signature, Arc::clone(&metrics_too), Now::at(1))
    };
    let audit = start().unwrap();
    assert_eq!(audit.note(act(2)).await, Written::Yes);
    assert_eq!(folder.text().lines().count(), 2);
    fs::remove_dir_all(&folder.0).unwrap();
    assert_eq!(audit.note(act(3)).await, Written::No);
    assert!(start().is_err(), "a node does not start without the log that it should have");
    fs::create_dir_all(&folder.0).unwrap();
    assert_eq!(audit.note(act(4)).await, Written::Yes);
    let last: Value = serde_json::from_str(folder.text().lines().last().unwrap()).unwrap();
    assert_eq!((&last["missing"], &last["seq"]), (&json!(1), &json!(3)));
    audit.close(Duration::from_secs(5));
    assert_eq!(audit.note(act(5)).await, Written::No, "it is closed");
    assert_eq!((metrics.node.audit_lines.get(), metrics.node.audit_failures.get()), (3, 2));
    assert_eq!(Audit::off().note(act(1)).await, Written::Off);
}
