use std::path::Path;

use super::*;

fn parsed(words: &[&str]) -> Invocation {
    parse(
        std::iter::once("reagent")
            .chain(words.iter().copied())
            .map(OsString::from),
    )
}

fn answered(words: &[&str]) -> Answer {
    match parsed(words) {
        Invocation::Answer(answer) => answer,
        Invocation::Run { settings, .. } => panic!("{words:?} runs with {settings:?}"),
        Invocation::Service(order) => panic!("{words:?} orders {order:?}"),
    }
}

fn running(words: &[&str]) -> (Settings, Option<String>) {
    match parsed(words) {
        Invocation::Run { settings, warning } => (*settings, warning),
        Invocation::Answer(answer) => panic!("{words:?} answers {answer:?}"),
        Invocation::Service(order) => panic!("{words:?} orders {order:?}"),
    }
}

#[test]
fn the_version_is_the_one_of_the_workspace_and_a_bare_semantic_version() {
    assert_eq!(VERSION, env!("CARGO_PKG_VERSION"));
    let numbers: Vec<&str> = VERSION.split('.').collect();
    assert_eq!(numbers.len(), 3);
    assert!(
        numbers.iter().all(|number| number.parse::<u32>().is_ok()),
        "{VERSION}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn the_defaults_are_those_of_the_contract() {
    let (settings, warning) = running(&["-config", "x"]);
    assert_eq!(warning, None);
    assert_eq!(settings.config, Path::new("x"));
    assert_eq!(settings.agent_dir, Path::new("/opt/reagent"));
    assert_eq!(settings.apps_dir, Path::new("/opt/reagent/apps"));
    assert_eq!(settings.database, Path::new("/opt/reagent/reagent.db"));
    assert_eq!(settings.log_file, Path::new("/var/log/reagent.log"));
    assert_eq!(settings.compressed_build_extension, "tgz");
    assert_eq!(settings.remote_update_url, "https://storage.googleapis.com");
    assert_eq!(settings.environment, "");
    assert_eq!(settings.connect_timeout, Duration::from_millis(1250));
    assert_eq!(settings.response_timeout, Duration::from_millis(7000));
    assert_eq!(settings.ping_interval, Duration::from_millis(5000));
    assert!(settings.debug && settings.network_manager && settings.update);
    assert!(!settings.debug_messaging && !settings.pretty_logging && !settings.offline);
    assert_eq!(settings.build_dir(), Path::new("/opt/reagent/apps/build"));
    assert_eq!(settings.downloads_dir(), Path::new("/opt/reagent/downloads"));
}

#[test]
fn every_flag_reaches_its_setting() {
    let (settings, _) = running(&[
        "-agentDir=/a",
        "--appsDir",
        "/b",
        "-compressedBuildExtension=zip",
        "-config=c",
        "-connTimeout=0x10",
        "-dbFileName=reagent.db",
        "-debug=false",
        "-debugMessaging",
        "-env=test",
        "-logFile",
        "/d.log",
        "-nmw=0",
        "-offline",
        "-ppTimeout=010",
        "-prettyLogging",
        "-profiling",
        "-profilingPort=0",
        "-remoteUpdateURL=https://updates.example",
        "-respTimeout=0",
        "-update=F",
    ]);
    assert_eq!(settings.agent_dir, Path::new("/a"));
    assert_eq!(settings.apps_dir, Path::new("/b"));
    assert_eq!(settings.compressed_build_extension, "zip");
    assert_eq!(settings.connect_timeout, Duration::from_millis(16));
    assert_eq!(
        settings.database,
        Path::new("reagent.db"),
        "relative to the working directory"
    );
    assert!(!settings.debug && settings.debug_messaging);
    assert_eq!(settings.environment, "test");
    assert_eq!(settings.log_file, Path::new("/d.log"));
    assert!(!settings.network_manager && settings.offline && settings.pretty_logging && !settings.update);
    assert_eq!(settings.ping_interval, Duration::from_millis(8));
    assert_eq!(settings.remote_update_url, "https://updates.example");
    assert_eq!(
        settings.response_timeout,
        Duration::from_millis(5000),
        "0 is the library's default"
    );
}

#[test]
fn the_last_of_several_values_counts() {
    let (settings, _) = running(&["-config=a", "-config=b", "-debug", "-debug=false"]);
    assert_eq!(settings.config, Path::new("b"));
    assert!(!settings.debug);
}

#[test]
fn words_behind_the_flags_are_ignored_with_a_warning() {
    let (settings, warning) = running(&["-config", "x", "extra", "-debug=false"]);
    assert!(settings.debug);
    assert_eq!(
        warning.as_deref(),
        Some("ignoring everything from \"extra\" on: extra -debug=false")
    );
    let (_, warning) = running(&["-config", "x", "--"]);
    assert_eq!(warning, None);
}

#[test]
fn version_and_architecture_are_printed_whatever_else_is_asked() {
    for words in [
        &["-version"][..],
        &["--version"],
        &["-version", "-arch"],
        &["-version", "-config", "x"],
    ] {
        let expected = Answer {
            stdout: format!("{VERSION}\n"),
            ..Answer::default()
        };
        assert_eq!(answered(words), expected, "{words:?}");
    }
    let arch = answered(&["-arch"]);
    assert_eq!((arch.stdout.trim(), arch.code), (platform::build_arch(), 0));
}

#[test]
fn a_missing_config_is_a_hint_on_both_outputs_and_success() {
    for words in [&[][..], &["-config="], &["-version=false"]] {
        let answer = answered(words);
        assert_eq!(
            answer.stdout, "'-config' argument is required. -help for usage\n",
            "{words:?}"
        );
        assert_eq!(answer.stderr, answer.stdout, "{words:?}");
        assert_eq!(answer.code, 0, "{words:?}");
    }
    let answer = answered(&["-debug", "false", "-config", "x"]);
    assert_eq!(answer.code, 0);
    assert!(answer.stderr.contains("false -config x"), "{}", answer.stderr);
}

#[test]
fn refusals_are_one_line_and_the_usage_with_code_two() {
    for (words, line) in [
        (&["-nope"][..], "flag provided but not defined: -nope"),
        (&["-config"], "flag needs an argument: -config"),
        (
            &["-ppTimeout", "-1"],
            "invalid value \"-1\" for flag -ppTimeout: parse error",
        ),
        (
            &["-update=yes"],
            "invalid boolean value \"yes\" for -update: parse error",
        ),
        (&["---config"], "bad flag syntax: ---config"),
        (
            &["-config", "x", "-dbFileName="],
            "invalid value \"\" for flag -dbFileName: a file name is needed",
        ),
    ] {
        let answer = answered(words);
        assert_eq!(
            answer.stderr,
            format!("{line}\n{}", usage("reagent")),
            "{words:?}"
        );
        assert_eq!((answer.stdout.as_str(), answer.code), ("", 2), "{words:?}");
    }
}

#[test]
fn the_usage_has_the_layout_of_go_and_every_flag_of_the_contract() {
    let answer = answered(&["-help"]);
    assert_eq!((answer.stdout.as_str(), answer.code), ("", 0));
    let text = answer.stderr;
    assert!(
        text.starts_with("Usage of reagent:\n  -agentDir string\n    \tdirectory "),
        "{text}"
    );
    for excerpt in [
        "  -arch\n    \tprints the architecture this binary was built for and exits\n",
        "  -debug\n    \tlogs at debug level, else at info level (default true)\n",
        "  -ppTimeout uint\n    \tmilliseconds between WebSocket pings, 0 for none (default 5000)\n",
        " (default \"production\")\n",
    ] {
        assert!(text.contains(excerpt), "{excerpt:?} in {text}");
    }
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  -"))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "agentDir",
            "appsDir",
            "arch",
            "compressedBuildExtension",
            "config",
            "connTimeout",
            "dbFileName",
            "debug",
            "debugMessaging",
            "env",
            "logFile",
            "nmw",
            "offline",
            "ppTimeout",
            "prettyLogging",
            "profiling",
            "profilingPort",
            "remoteUpdateURL",
            "respTimeout",
            "update",
            "version",
        ]
    );
}

#[test]
fn service_is_a_command_only_as_the_first_word() {
    let order = parsed(&["service", "install", "-config", "x"]);
    assert!(matches!(order, Invocation::Service(_)), "{order:?}");
    for (words, code) in [
        (&["service"][..], 2),
        (&["service", "x"], 2),
        (&["service", "install"], 1),
    ] {
        let answer = answered(words);
        assert_eq!((answer.stdout.as_str(), answer.code), ("", code), "{answer:?}");
        assert!(answer.stderr.starts_with("error: "), "{answer:?}");
    }
    let (_, warning) = running(&["-config", "x", "service"]);
    assert!(warning.is_some());
}

#[test]
fn a_relative_agent_directory_is_that_of_this_start_for_good() {
    let (settings, _) = running(&["-config", "x", "-agentDir", "here/agent"]);
    let here = std::env::current_dir().unwrap();
    assert_eq!(settings.agent_dir, here.join("here/agent"));
}
