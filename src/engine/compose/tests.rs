use super::*;

#[test]
fn the_first_number_of_a_version_tells_the_dialect() {
    for (version, dialect) in [
        ("1.29.2", Dialect::First),
        ("v2.17.0", Dialect::Second),
        ("2.26.1-4", Dialect::Second),
        ("5.0.0", Dialect::Second),
        ("", Dialect::Second),
    ] {
        assert_eq!(dialect_of(version), dialect, "{version}");
    }
}

#[test]
fn images_are_the_same_in_normal_form_only() {
    assert!(same_image("nginx", "docker.io/library/nginx:latest"));
    assert!(!same_image("nginx", "my/nginx-x:1"));
    assert!(!same_image("r/x_1_app:1", "r/x_1_app2:1"));
}
