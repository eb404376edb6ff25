use super::*;

/// A folder of its own that goes away at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("atoll-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key_pem(key: &rcgen::KeyPair) -> String {
    to_pem(&key.serialize_der()).replace("CERTIFICATE", "PRIVATE KEY")
}

fn leaf(names: &[&str], from: i32, until: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names.clone()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, names.concat());
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    (to_pem(parameters.self_signed(&key).unwrap().der()), key_pem(&key))
}

#[test]
fn a_sound_pair_is_loaded_with_its_names_and_end() {
    let folder = Folder::new("sound");
    let (chain, key) = leaf(&["A.test", "*.b.test"], 2020, 2090);
    let files =
        CertificateFiles { chain: folder.write("chain", chain), key: folder.write("key", key) };
    let certificates = Certificates::load(&[files]).unwrap();
    let status = certificates.status();
    assert_eq!(status[0].names, ["a.test", "*.b.test"]);
    assert_eq!(x509::civil_from_time(status[0].expires), (2090, 1, 1));
    assert!(status[0].file.is_some());
}

#[test]
fn each_fault_is_named_with_its_file_and_all_at_once() {
    let folder = Folder::new("faults");
    let (chain, key) = leaf(&["a.test"], 2020, 2090);
    let (other_chain, other_key) = leaf(&["b.test"], 2020, 2090);
    let (expired, expired_key) = leaf(&["c.test"], 2001, 2002);
    let (early, early_key) = leaf(&["d.test"], 2080, 2090);
    let (nameless, nameless_key) = leaf(&[], 2020, 2090);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let rows: Vec<(&str, Vec<u8>, Vec<u8>, &str)> = vec![
        ("mismatch", chain.clone().into(), other_key.clone().into(), "does not belong"),
        ("expired", expired.into(), expired_key.into(), "expired at Tue, 01 Jan 2002"),
        ("early", early.into(), early_key.into(), "valid from"),
        ("nameless", nameless.into(), nameless_key.into(), "names no host"),
        ("order", format!("{chain}{other_chain}").into(), key.clone().into(), "not issued by"),
        ("truncated", chain[..chain.len() - 40].into(), key.clone().into(), "cut short"),
        ("empty", Vec::new(), key.clone().into(), "no certificate"),
        ("encrypted", chain.clone().into(), encrypted.into(), "passphrase"),
        ("no key", chain.clone().into(), chain.clone().into(), "nothing that is needed"),
        ("not der", to_pem(b"nonsense").into(), key.clone().into(), "cannot be read"),
        ("huge", vec![b'a'; 2 << 20], key.clone().into(), "too many"),
    ];
    let files: Vec<_> = rows
        .iter()
        .map(|(case, chain, key, _)| CertificateFiles {
            chain: folder.write(&format!("{case}.chain"), chain),
            key: folder.write(&format!("{case}.key"), key),
        })
        .chain([CertificateFiles { chain: folder.0.join("missing"), key: folder.0.join("x") }])
        .collect();
    let error = Certificates::load(&files).unwrap_err();
    assert_eq!(error.problems.len(), rows.len() + 1, "{error}");
    for ((case, _, _, expected), problem) in rows.iter().zip(&error.problems) {
        let text = problem.to_string();
        assert!(text.contains(expected) && text.contains(case), "{case}: {text}");
    }
    assert!(error.to_string().contains("cannot read it"));
}

#[test]
fn an_issued_chain_in_order_is_accepted() {
    let folder = Folder::new("chain");
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["a.test".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let chain = format!("{}{}", to_pem(leaf.der()), to_pem(root.der()));
    let turned = format!("{}{}", to_pem(root.der()), to_pem(leaf.der()));
    let key = folder.write("key", key_pem(&key));
    let load = |text: String| {
        let chain = folder.write("chain", text);
        Certificates::load(&[CertificateFiles { chain, key: key.clone() }])
    };
    assert!(load(chain).is_ok());
    assert!(load(turned).is_err());
}

#[test]
fn exact_beats_wildcard_and_strangers_get_the_first_or_nothing() {
    let made = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let table = make(&names, crate::clock::now().wall).unwrap().certificates.table.load_full();
        (Arc::clone(table.first.as_ref().unwrap()), table.status[0].clone())
    };
    let rows = [made(&["first.test"]), made(&["*.example.test"]), made(&["a.example.test"])];
    let mut table = Table::default();
    for (key, status) in &rows {
        table.add(Arc::clone(key), status.clone());
    }
    let certificates = Certificates::of(table);
    let cases = [
        (None, Some(0)),
        (Some("first.test"), Some(0)),
        (Some("a.example.test"), Some(2)),
        (Some("A.Example.TEST"), Some(2)),
        (Some("b.example.test"), Some(1)),
        (Some("b.a.example.test"), None),
        (Some("example.test"), None),
        (Some("stranger"), None),
    ];
    let place = |certificates: &Certificates, name| {
        let picked = certificates.pick(name)?;
        rows.iter().position(|(key, _)| Arc::ptr_eq(key, &picked))
    };
    for (name, expected) in cases {
        assert_eq!(place(&certificates, name), expected.or(Some(0)), "{name:?}");
    }
    let strict = certificates.refuse_unknown(true);
    for (name, expected) in cases {
        assert_eq!(place(&strict, name), expected, "{name:?}");
    }
}

#[test]
fn a_self_made_certificate_stands_for_its_names_and_loopback() {
    let names = ["*", "Shop.test", "*.shop.test", "localhost"].map(str::to_owned);
    let made = Certificates::self_made(&names).unwrap();
    let status = made.certificates.status();
    let mut found = status[0].names.clone();
    found.sort();
    assert_eq!(found, ["*.shop.test", "localhost", "shop.test"]);
    assert!(status[0].expires > crate::clock::now().wall);
    assert!(CertificateDer::from_pem_slice(made.pem.as_bytes()).unwrap().as_ref() == made.der);
}

#[test]
fn replacing_takes_the_whole_new_set() {
    let old = Certificates::self_made(&["old.test".to_owned()]).unwrap().certificates;
    let new = Certificates::self_made(&["new.test".to_owned()]).unwrap().certificates;
    old.replace(&new);
    assert_eq!(old.status(), new.status());
}
