//! `atoll mesh`: how the nodes stand to one another, and what a mesh is made with.

mod authority;

use clap::{Args, Subcommand};

use authority::{Init, Issue};

const ABOUT: &str = "Makes the certificates that a mesh is held together by";

const MORE: &str = "\
Exit codes:
  0  done
  1  refused, or failed
  2  wrong flags";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Mesh {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    Init(Init),
    Issue(Issue),
}

impl Mesh {
    pub(super) fn run(self) -> u8 {
        match self.act {
            Act::Init(init) => init.run(),
            Act::Issue(issue) => issue.run(),
        }
    }
}
