//! Hooks as they are written, and the examples in `config/hooks/`.

use super::*;

const HOOK: &str = "[[hook]]\nname = \"cms\"\nverify = \"shared\"\nheader = \"X-Secret\"\n";
const SECRET: &str = "secret = \"0123456789abcdef\"\n";
const ON: &str = "[[hook.on]]\ntags = [\"a:{/id}\"]\n";

#[test]
fn the_examples_can_be_used_as_they_are() {
    for (text, names) in [
        (include_str!("../../../config/hooks/strapi.toml"), vec!["strapi"]),
        (include_str!("../../../config/hooks/wordpress.toml"), vec!["wordpress", "woocommerce"]),
        (include_str!("../../../config/hooks/github.toml"), vec!["github"]),
    ] {
        let loaded = load_text(&format!("{SMALL}{text}")).unwrap_or_else(|said| panic!("{said}"));
        let hooks = loaded.config.admin.hooks;
        assert_eq!(hooks.iter().map(|hook| &*hook.name).collect::<Vec<_>>(), names);
        assert!(hooks.iter().all(|hook| hook.site == "main" && !hook.on.is_empty()));
        assert_eq!(loaded.warnings.counts(), (0, 0), "{}", loaded.warnings);
    }
}

#[test]
fn a_secret_is_read_from_its_file_and_never_printed() {
    let text = format!("{SMALL}{HOOK}secret_file = \"admin.token\"\n{ON}");
    let config = load_text(&text).unwrap_or_else(|said| panic!("{said}")).config;
    assert_eq!(config.admin.hooks[0].proof.secret.bytes(), b"atoll_0123456789abcdef");
    let printed = format!("{config:?}");
    assert!(printed.contains("Secret") && !printed.contains("0123456789abcdef"), "{printed}");
}

#[test]
fn a_hook_that_cannot_work_is_refused() {
    let other = "[[site]]\nname = \"other\"\nhosts = [\"other.example\"]\n";
    for (tail, expected) in [
        (format!("{HOOK}{ON}"), "`secret_file` or `secret`"),
        (format!("{HOOK}{SECRET}secret_file = \"admin.token\"\n{ON}"), "one of the keys"),
        (format!("{HOOK}secret = \"short\"\n{ON}"), "at least 16 bytes"),
        (format!("{HOOK}secret_file = \"short.token\"\n{ON}"), "at least 16 bytes"),
        (format!("{HOOK}secret_file = \"gone.token\"\n{ON}"), "cannot be used"),
        (format!("{HOOK}{SECRET}"), "does nothing"),
        (format!("{HOOK}{SECRET}[[hook.on]]\n"), "names nothing"),
        (format!("{HOOK}{SECRET}{ON}all = true\n"), "stands without other selectors"),
        (format!("{HOOK}{SECRET}{ON}when = {{ \"a b\" = \"c\" }}\n"), "JSON pointer"),
        (format!("{HOOK}{SECRET}{ON}when = {{ \"/a\" = [] }}\n"), "1 to 64 words"),
        (format!("{HOOK}{SECRET}{ON}when = {{ \"/a\" = 1 }}\n"), "a text in quotes"),
        (format!("{HOOK}{SECRET}{ON}urls = [\"/a/{{/slug}}\"]\n"), "https://"),
        (format!("{HOOK}{SECRET}{ON}mode = \"hardest\"\n"), "\"hard\""),
        (format!("{HOOK}{SECRET}site = \"mian\"\n{ON}"), "did you mean \"main\""),
        (format!("{HOOK}{SECRET}{ON}{HOOK}{SECRET}{ON}"), "two hooks have the name"),
        (format!("{other}{HOOK}{SECRET}{ON}"), "does not say its `site`"),
        (HOOK.replace("shared", "trust") + SECRET + ON, "\"hmac-sha256\""),
    ] {
        let said = said(&format!("{SMALL}{tail}"));
        assert!(said.contains("error") && said.contains(expected), "{tail}\n{said}");
    }
}
