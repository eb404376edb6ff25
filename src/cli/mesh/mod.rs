//! `atoll mesh`: how the nodes stand to one another, and what a mesh is made with.

mod authority;
mod status;

use clap::{Args, Subcommand};

use super::remote::Remote;
use authority::{Init, Issue};
use status::Status;

const ABOUT: &str =
    "Shows how the mesh looks from a node, and makes the certificates that hold it together";

const MORE: &str = "\
Without a further word it is `atoll mesh status`.

Examples:
  atoll mesh
  atoll mesh status --json
  atoll mesh init mesh
  atoll mesh issue fra-1 --pop fra --ca mesh

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read, for all sites) for the status
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  done
  1  refused, or failed
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE, args_conflicts_with_subcommands = true)]
pub(super) struct Mesh {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Act {
    Status(Status),
    Init(Init),
    Issue(Issue),
}

impl Mesh {
    pub(super) fn run(self) -> u8 {
        match self.act {
            Some(Act::Status(status)) => status.run(),
            Some(Act::Init(init)) => init.run(),
            Some(Act::Issue(issue)) => issue.run(),
            None => status::show(&self.remote),
        }
    }
}
