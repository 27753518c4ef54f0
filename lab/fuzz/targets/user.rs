//! Values of `-u`, looked up in the files of this machine.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use vsrun::error::FAILED;
use vsrun::plan::identity::User;
use vsrun_fuzz::{assert_visible, look_up_in_files_only};

fuzz_target!(|data: &[u8]| {
    look_up_in_files_only();
    // Arguments contain no NUL.
    if data.contains(&0) {
        return;
    }
    match User::resolve(&OsString::from_vec(data.to_owned()).into()) {
        Ok(user) => {
            let (name, group) = match data.iter().position(|byte| *byte == b':') {
                Some(colon) => (&data[..colon], Some(&data[colon + 1..])),
                None => (data, None),
            };
            assert_names(name, user.owner.uid.as_raw());
            group
                .into_iter()
                .for_each(|group| assert_names(group, user.owner.gid.as_raw()));
            assert!(
                user.environment()
                    .iter()
                    .all(|(_, value)| !value.is_empty())
            );
        }
        Err(error) => {
            assert_eq!(error.status(), FAILED);
            assert_visible(&error.to_string());
        }
    }
});

/// Checks that a text is a number in its usual form, or a name.
fn assert_names(text: &[u8], id: u32) {
    assert_ne!(id, u32::MAX, "this id means no change, see setresuid(2)");
    let text = std::str::from_utf8(text).expect("text");
    assert!(
        !text.is_empty() && !text.contains(char::is_whitespace),
        "{text:?}"
    );
    if text.parse::<i128>().is_ok() {
        assert_eq!(text, id.to_string());
    } else {
        assert!(
            !text.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c)),
            "{text:?}"
        );
    }
}
