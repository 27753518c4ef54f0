//! What a server is started with (spec 1.3), and starts that fail.

mod descriptors;
mod directory;
mod environment;
mod failures;
mod refused_calls;
mod session;
mod signals;

use crate::prelude::*;

/// Starts a server in each of the four ways, as changed by `with`, and returns the reports.
pub fn in_every_way(with: impl Fn(Invocation<'_>) -> Invocation<'_>) -> [Report; 4] {
    WAYS.map(|(background, managed)| {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let report = sandbox.path("report");
        let mut start = with(sandbox.vsrun());
        if background {
            start = start.background();
        }
        if managed {
            start = start.manager(sandbox.path("manager"), &handler);
        }
        let server = sandbox.probe().report(&report).exit(0);
        start.command(server).run().expect_code(0);
        Report::wait(&report)
    })
}
