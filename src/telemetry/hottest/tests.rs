use http::HeaderMap;
use proptest::prelude::*;

use super::super::record::Tagged;
use super::*;

fn sites() -> Vec<SiteMetrics> {
    ["zero", "one"].map(|name| SiteMetrics::new(name.into(), 2, 1)).into()
}

fn record(site: Option<usize>, target: &str, bytes: u64) -> Record {
    let mut record = Record::blank(None);
    record.set_request(&Method::GET, "a.test", target, &HeaderMap::new());
    record.site = site;
    record.bytes_sent = bytes;
    record
}

fn note(hottest: &Hottest, target: &str, bytes: u64, times: usize, second: u64) {
    let record = record(Some(0), target, bytes);
    for _ in 0..times {
        hottest.note(std::iter::once(&record), &sites(), 1.0, Duration::from_secs(second));
    }
}

fn urls(hottest: &Hottest, by: Weight, second: u64) -> Vec<Box<str>> {
    hottest.urls(by, 3, &|_| true, Now::at(second)).into_iter().map(|hot| hot.name).collect()
}

#[test]
fn the_hottest_come_first_by_either_weight_and_old_ones_fade() {
    let hottest = Hottest::new();
    note(&hottest, "/often", 10, 100, 10);
    note(&hottest, "/large", 100_000, 5, 10);
    note(&hottest, "/seldom", 1, 1, 10);
    let [often, large, seldom] =
        ["/often", "/large", "/seldom"].map(|target| format!("http://a.test{target}").into());
    assert_eq!(urls(&hottest, Weight::Requests, 11), [&often, &large, &seldom].map(Clone::clone));
    assert_eq!(urls(&hottest, Weight::Bytes, 11), [&large, &often, &seldom].map(Clone::clone));
    note(&hottest, "/seldom", 1, 50, 130);
    assert_eq!(urls(&hottest, Weight::Requests, 131)[0], seldom);
    assert_eq!(urls(&hottest, Weight::Requests, 2000), Vec::<Box<str>>::new());
}

#[test]
fn sums_become_rates_from_the_first_seconds_on() {
    let hottest = Hottest::new();
    for second in 100..110 {
        note(&hottest, "/a", 1000, 20, second);
    }
    let load = hottest.sites(Now::at(110))["zero"];
    assert!((load.requests - 20.0).abs() < 3.0, "{load:?}");
    assert!((load.bytes - 20_000.0).abs() < 3000.0, "{load:?}");
    assert!(!hottest.sites(Now::at(110)).contains_key("one"));
}

#[derive(Debug)]
struct Bearing(&'static [&'static str]);

impl Tagged for Bearing {
    fn first_tags(&self) -> Vec<Box<str>> {
        self.0.iter().map(|tag| Box::from(*tag)).collect()
    }
}

#[test]
fn tags_of_each_site_are_counted_by_themselves() {
    let hottest = Hottest::new();
    let all: [(Option<usize>, &[&str], u64, usize); 4] = [
        (Some(0), &["news", "page"], 10, 9),
        (Some(0), &["film"], 5000, 2),
        (Some(1), &["news"], 1, 20),
        (None, &["nobody"], 1, 50),
    ];
    for (site, tags, bytes, times) in all {
        let mut record = record(site, "/", bytes);
        record.tagged = Some(std::sync::Arc::new(Bearing(tags)));
        for _ in 0..times {
            hottest.note_tags(std::iter::once(&record), &sites(), 1.0, Duration::from_secs(5));
        }
    }
    let found = |by, pass: &dyn Fn(&str) -> bool| -> Vec<(Arc<str>, Box<str>)> {
        let hot = hottest.tags(by, 9, pass, Now::at(5));
        hot.into_iter().map(|hot| (hot.site, hot.name)).collect()
    };
    let rows = [("zero", "news"), ("zero", "page"), ("zero", "film"), ("one", "news")];
    let [a_news, page, film, b_news] = rows.map(|(site, tag)| (site.into(), tag.into()));
    let all = [&b_news, &a_news, &page, &film].map(Clone::clone);
    assert_eq!(found(Weight::Requests, &|_| true), all);
    assert_eq!(found(Weight::Bytes, &|site| site == "zero"), [film, a_news, page]);
    assert!(hottest.urls(Weight::Requests, 9, &|_| true, Now::at(5)).is_empty());
}

#[test]
fn other_sites_and_requests_of_no_site_are_not_told() {
    let hottest = Hottest::new();
    let rows = [record(None, "/none", 1), record(Some(7), "/unknown", 1), record(Some(0), "/a", 1)];
    hottest.note(rows.iter(), &sites(), 1.0, Duration::from_secs(1));
    assert_eq!(urls(&hottest, Weight::Requests, 2).len(), 1);
    assert!(hottest.urls(Weight::Requests, 9, &|site| site != "zero", Now::at(2)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn a_heavy_one_is_found_among_many_light_ones_in_bounded_memory(seed in 0_u32..1000) {
        let hottest = Hottest::new();
        for at in 0..3000_u32 {
            note(&hottest, &format!("/{seed}/{at}"), 1, 1, 5);
            if at % 10 == 0 {
                note(&hottest, "/heavy", 1, 1, 5);
            }
        }
        let found = hottest.urls(Weight::Requests, 1, &|_| true, Now::at(6));
        prop_assert_eq!(&*found[0].name, "http://a.test/heavy");
        prop_assert!(hottest.lock().urls.by_requests.kept.len() < KEPT + NEWCOMERS);
    }
}
