//! What `atoll demo` prints: things to try, in an order that tells a story.

/// The tour, for a terminal. The addresses are base URLs without a final slash (edge in plain, edge
/// over TLS, admin, origin); `token` opens the admin API.
#[must_use]
pub(in crate::cli) fn tour(
    edge_http: &str,
    edge_https: &str,
    admin: &str,
    token: &str,
    origin: &str,
) -> String {
    let program = program();
    format!(
        "  The site           {edge_http}/   {edge_https}/ (self-made certificate)
  Its origin         {origin}/
  Metrics, admin     {admin}/metrics   token {token}

Things to try, in another terminal:

  # A miss, then a hit. Cache-Status says which; the version is the origin's count of its answers.
  curl -i {edge_http}/api/articles/1
  curl -i {edge_http}/api/articles/1

  # The same over TLS and HTTP/2. (Early hints come with the first request for a page.)
  curl -ik --http2 {edge_https}/

  # Purge by tag: the article's page and its data bear article-1, and both are gone at once.
  curl -X POST {admin}/v1/purge -H \"Authorization: Bearer {token}\" -d '{{\"tags\": [\"article-1\"]}}'
  curl -i {edge_http}/api/articles/1

  # The same from the command line, softly: the old answer may still be shown while it is renewed.
  ATOLL_ADMIN_TOKEN={token} {program} purge --soft --tag articles --admin {admin}

  # Twenty clients, one slow page (1 s), one question to the origin: all say the same version.
  for i in $(seq 20); do curl -s {edge_http}/slow | grep version & done; wait

  # Let the origin fail. After its two seconds of freshness, /fail is answered stale, not broken.
  curl -s {edge_http}/fail
  curl -X POST '{origin}/demo/fail?on'; sleep 3
  curl -i {edge_http}/fail
  curl -X POST '{origin}/demo/fail?off'

  # One URL, three languages, a stored variant for each.
  curl -s {edge_http}/welcome -H 'Accept-Language: fr' | grep '<h1>'
  curl -s {edge_http}/welcome -H 'Accept-Language: de' | grep '<h1>'

  # A range, and a question that is answered with 304, both without the origin.
  curl -s -o /dev/null {edge_http}/lagoon.png
  curl -s -r 1-3 {edge_http}/lagoon.png; echo
  curl -i {edge_http}/lagoon.png -H 'If-Modified-Since: Thu, 01 Jan 2026 09:00:00 GMT'

  # Never stored: what belongs to one visitor.
  curl -i {edge_http}/account

  # What the origin was asked in all this, and what the edge counted.
  curl -s {origin}/demo/hits
  curl -s {admin}/metrics | grep ^atoll_requests_total
"
    )
}

/// The program as one would call it from here.
pub(super) fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "atoll".into());
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tour_uses_every_address_and_fits_a_wide_terminal() {
        let text = tour("http://e:1", "https://e:2", "http://a:3", "secret", "http://o:4");
        for part in ["http://e:1/", "https://e:2/", "http://a:3/v1/purge", "secret", "http://o:4/"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(text.lines().all(|line| line.chars().count() < 160));
    }
}
