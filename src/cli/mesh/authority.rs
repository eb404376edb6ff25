//! `atoll mesh init` and `atoll mesh issue`: the mesh's authority, and certificates of its nodes.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::clock;
use crate::mesh::{AUTHORITY_FILE, AUTHORITY_KEY_FILE, Authority};

use super::super::{DONE, REFUSED, complain};

const INIT_MORE: &str = "\
The folder holds the authority's certificate, which every node needs, and its key, which no node does:
keep it where certificates are issued, and nowhere else. Nothing is written over.

Examples:
  atoll mesh init mesh
  atoll mesh issue fra-1 --pop fra --ca mesh

Exit codes:
  0  done
  1  refused, or failed
  2  wrong flags";

const ISSUE_MORE: &str = "\
Writes NAME.pem and NAME.key (readable by its owner only) and prints what belongs into the node's
configuration. Nothing is written over: a renewed certificate goes into another folder.

Examples:
  atoll mesh issue fra-1 --pop fra --ca mesh
  atoll mesh issue fra-1 --pop fra --ca mesh --out renewed --days 90

Exit codes:
  0  done
  1  refused, or failed
  2  wrong flags";

#[derive(Args, Debug)]
#[command(about = "Makes the authority of a mesh: a certificate and its key", after_help = INIT_MORE)]
pub(super) struct Init {
    /// Folder for both; made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Args, Debug)]
#[command(about = "Makes the certificate of a node and its key", after_help = ISSUE_MORE)]
pub(super) struct Issue {
    /// Name of the node, as in its [node].
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// Its point of presence.
    #[arg(long, value_name = "POP", value_parser = name)]
    pop: String,
    /// Folder of the authority.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    /// Folder for certificate and key [default: the authority's].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long the certificate is good for.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// A name, as the configuration takes it.
fn name(text: &str) -> Result<String, String> {
    crate::config::parse_name(text)
}

impl Init {
    pub(super) fn run(self) -> u8 {
        let made = Authority::new(clock::now()).and_then(|made| made.save(&self.folder));
        if let Err(error) = made {
            complain(&error);
            return REFUSED;
        }
        let folder = self.folder.display();
        println!("The authority of the mesh: {folder}/{AUTHORITY_FILE}, for every node.");
        println!(
            "Its key: {folder}/{AUTHORITY_KEY_FILE}, for no node. Who has it can be any of them.\n"
        );
        println!("A node's certificate: atoll mesh issue NAME --pop POP --ca {folder}");
        DONE
    }
}

impl Issue {
    pub(super) fn run(self) -> u8 {
        let out = self.out.as_deref().unwrap_or(&self.ca);
        let issued = Authority::open(&self.ca)
            .and_then(|ca| ca.issue(&self.name, &self.pop, self.days, clock::now()))
            .and_then(|issued| issued.save(out, &self.name));
        match issued {
            Ok((certificate, key)) => {
                print!("{}", self.section(&certificate, &key));
                DONE
            }
            Err(error) => {
                complain(&error);
                REFUSED
            }
        }
    }

    /// What belongs into the node's configuration.
    fn section(&self, certificate: &Path, key: &Path) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let path = |path: &Path| {
            let whole = std::fs::canonicalize(path).unwrap_or_else(|_gone| path.to_owned());
            quoted(&whole.display().to_string())
        };
        format!(
            "[node]\n\
             name = {name}\n\
             pop = {pop}\n\
             \n\
             [mesh]\n\
             listen = \"0.0.0.0:7946\"\n\
             advertise = \"192.0.2.1:7946\"      # where the others reach this node\n\
             certificate = {certificate}\n\
             key = {key}\n\
             ca = [{ca}]\n\
             seeds = []                        # other nodes: \"host:7946\"\n\
             witnesses = [{name}]              # one, three or five, the same on all nodes\n\
             \n\
             # Every node of the mesh, the same on all nodes.\n\
             [[mesh.node]]\n\
             name = {name}\n\
             pop = {pop}\n",
            name = quoted(&self.name),
            pop = quoted(&self.pop),
            certificate = path(certificate),
            key = path(key),
            ca = path(&self.ca.join(AUTHORITY_FILE)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_a_part_of_a_configuration() {
        let issue = Issue {
            name: "fra-1".to_owned(),
            pop: "fra".to_owned(),
            ca: PathBuf::from("mesh"),
            out: None,
            days: 1,
        };
        let text = issue.section(Path::new("mesh/fra-1.pem"), Path::new("mesh/fra-1.key"));
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["mesh"]["certificate"].as_str(), Some("mesh/fra-1.pem"));
        assert_eq!(table["mesh"]["witnesses"][0].as_str(), Some("fra-1"));
        assert_eq!(table["mesh"]["node"][0]["pop"].as_str(), Some("fra"));
        assert_eq!(table["node"]["name"].as_str(), Some("fra-1"));
    }
}
