//! Whole command lines, words ended by NUL: they are parsed and planned, but not executed.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use nix::sys::stat::Mode;
use vsrun::cli::{Cli, Parsed, parse};
use vsrun::error::{Error, FAILED};
use vsrun::plan::Plan;
use vsrun_fuzz::{assert_visible, look_up_in_files_only, words};

fuzz_target!(|data: &[u8]| {
    look_up_in_files_only();
    let typed = words(data, 0);
    match parse(std::iter::once("vsrun".into()).chain(typed.iter().cloned())) {
        Ok(Parsed::Text(text)) => assert!(!text.is_empty()),
        Ok(Parsed::Server(cli)) => {
            let mark = typed.iter().position(|word| word == "--").expect("a mark");
            assert_eq!(cli.command, typed[mark + 1..]);
            assert!(!cli.command.is_empty());
            assert!(cli.output.syslog.is_none() || cli.output.logdir.is_none());
            values(&cli).for_each(|value| assert_typed(value, &typed[..mark]));
            plan(cli);
        }
        Err(error) => assert_error(&error),
    }
});

fn values(cli: &Cli) -> impl Iterator<Item = &OsStr> {
    let server = &cli.server;
    let user = server.user.as_ref().map(|user| user.typed.as_os_str());
    let paths = [&server.pidfile, &server.root, &server.work_dir];
    let pairs = [&cli.manager.manager, &cli.output.logdir];
    pairs
        .iter()
        .for_each(|values| assert!(values.as_ref().is_none_or(|two| two.len() == 2)));
    let single = user.into_iter().chain(cli.output.syslog.as_deref());
    let paths = paths.into_iter().flatten().map(|path| path.as_os_str());
    let pairs = pairs
        .into_iter()
        .flatten()
        .flatten()
        .map(OsString::as_os_str);
    single.chain(paths).chain(pairs)
}

/// A value is a word, or the end of one.
fn assert_typed(value: &OsStr, words: &[OsString]) {
    let typed = words
        .iter()
        .any(|word| word.as_bytes().ends_with(value.as_bytes()));
    assert!(typed, "{value:?}");
}

fn plan(cli: Cli) {
    let command = cli.command.clone();
    let plan = match Plan::new(cli, Mode::empty()) {
        Ok(plan) => plan,
        Err(error) => return assert_error(&error),
    };
    let management = plan
        .manager
        .as_ref()
        .map(|management| [management.pidfile.as_path(), management.handler.as_path()]);
    let single = [
        plan.pidfile.as_deref(),
        plan.root.as_deref(),
        plan.log_dir(),
    ];
    for path in single
        .into_iter()
        .flatten()
        .chain(management.into_iter().flatten())
    {
        assert!(path.is_absolute(), "{path:?}");
    }
    let server = plan.server();
    assert_eq!(server.program.name, command[0]);
    assert_eq!(server.program.arguments.count(), command.len());
    assert!(
        server
            .program
            .candidates
            .iter()
            .all(|path| path.as_bytes().starts_with(b"/"))
    );
    if let Some(logger) = plan.logger() {
        assert_eq!(logger.program.arguments.count(), 3);
    }
}

fn assert_error(error: &Error) {
    assert_eq!(error.status(), FAILED);
    assert_visible(&error.to_string());
}
