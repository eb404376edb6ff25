//! `atoll demo --pops`: a mesh on one machine, with the demo's site as the origin of all its nodes.
//!
//! Each node is a process of its own, started from this program with a configuration that an operator
//! could have written. Several nodes in one process would share what a process has once (the log, the
//! signals, the allocator's upkeep), and nobody could kill one of them or stop it to see what the others
//! say then.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Demo;
use super::nodes::{Folder, Node, Processes, configuration, plan, program};
use super::tour::program as own_name;
use crate::app;
use crate::cli::remote::token_of_environment;
use crate::cli::{DONE, REFUSED, complain};
use crate::config::{Config, Flags, Server, check_token, new_token};

/// Pause between two looks at the nodes.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs the mesh until it is told to stop, and gives the exit code.
pub(in crate::cli) fn run(pops: usize, json: bool) -> u8 {
    let outcome = app::with_origin(Arc::new(Demo::new()), measures, |origin| {
        let stop = stop_when_told()?;
        keep(pops, json, origin, &stop)
    });
    match outcome.and_then(|kept| kept) {
        Ok(()) => DONE,
        Err(error) => {
            complain(&error);
            REFUSED
        }
    }
}

/// A configuration for the metrics of the origin, which nobody asks for.
fn measures(origin: SocketAddr) -> Result<Config, String> {
    let host = Ipv4Addr::LOCALHOST.to_string();
    let server = Server { host, port: origin.port(), ..Server::default() };
    let flags = Flags { origin: vec![server], ..Flags::default() };
    let loaded = Config::built_in(&flags).map_err(|problems| problems.to_string())?;
    Ok(loaded.config)
}

fn keep(pops: usize, json: bool, origin: SocketAddr, stop: &AtomicBool) -> Result<(), String> {
    let token = match token_of_environment()? {
        Some(token) => check_token(&token).map(|()| token)?,
        None => new_token()?,
    };
    let nodes = plan(pops)?;
    let folder = Folder::new()?;
    eprintln!("making certificates, starting {} nodes", nodes.len());
    prepare(&nodes, &folder, origin)?;
    let told = || stop.load(Ordering::Acquire);
    // Before the folder in the order of ending: the nodes write into it.
    let mut processes = Processes::start(nodes.clone(), folder.path(), &token)?;
    let ready = processes.ready(&told);
    if told() {
        return Ok(());
    }
    ready?;
    if json {
        println!("{}", document(&token, &nodes));
    }
    eprint!("{}", tour(&token, &processes));
    while !told() {
        for gone in processes.gone() {
            eprintln!("{gone}");
        }
        if !processes.any() {
            return Err("no node is left".to_owned());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Writes certificates and configurations.
fn prepare(nodes: &[Node], folder: &Folder, origin: SocketAddr) -> Result<(), String> {
    let path = folder.path();
    let ca = path.to_str().ok_or("the folder for temporary files has a name that is no text")?;
    program(&["mesh", "init", ca])?;
    for node in nodes {
        program(&["mesh", "issue", &node.name, "--pop", node.pop, "--ca", ca])?;
        let file = path.join(format!("{}.toml", node.name));
        let written = fs::write(&file, configuration(node, nodes, origin));
        written.map_err(|error| format!("{}: {error}", file.display()))?;
        let log = path.join(format!("{}.witness", node.name));
        fs::create_dir(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    }
    Ok(())
}

/// What a program needs to play with the nodes.
fn document(token: &str, nodes: &[Node]) -> Value {
    let node = |node: &Node| {
        json!({
            "name": node.name,
            "pop": node.pop,
            "listen": node.listen.to_string(),
            "listen_tls": node.listen_tls.to_string(),
            "admin": node.admin.to_string(),
        })
    };
    json!({ "token": token, "nodes": nodes.iter().map(node).collect::<Vec<_>>() })
}

/// Things to try.
fn tour(token: &str, processes: &Processes) -> String {
    let mut list = String::new();
    for (node, pid) in processes.pids() {
        list += &format!(
            "  {:<6} {:<5} http://{:<17} https://{:<17} http://{:<17} {pid}\n",
            node.name, node.pop, node.listen, node.listen_tls, node.admin
        );
    }
    let mut nodes = processes.pids();
    let (Some(first), Some((_, last))) = (nodes.next().map(|(node, _)| node), nodes.last()) else {
        return list;
    };
    let (name, admin, listen) = (own_name(), first.admin, first.listen);
    format!(
        "\natoll {version}, the demo of a mesh. Ctrl-C ends it.\n\n  \
         NODE   POP   SITE                     THE SAME OVER TLS         ADMIN                    PROCESS\n\
         {list}\n\
         Things to try, in another terminal:\n\n  \
         export ATOLL_ADMIN_TOKEN={token} ATOLL_ADMIN=http://{admin}\n\n  \
         # A page, twice at one node: a miss, then a hit. Then a purge, with proof from every node.\n  \
         curl -i http://{listen}/api/articles/1; curl -i http://{listen}/api/articles/1\n  \
         {name} purge --tag article-1 --wait everywhere\n\n  \
         # The mesh as this node sees it.\n  \
         {name} mesh\n\n  \
         # Kill a node and purge again: it is unknown, and fenced 2 s later.\n  \
         kill -9 {last}\n  \
         {name} purge --tag article-1 --wait everywhere --timeout 10s\n  \
         {name} mesh\n\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A flag that SIGTERM and SIGINT set.
fn stop_when_told() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        let open = |kind| signal(kind).map_err(|error| error.to_string());
        (open(SignalKind::terminate())?, open(SignalKind::interrupt())?)
    };
    // It ends with the process, if no signal comes.
    let listen = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        told.store(true, Ordering::Release);
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(listen);
    thread.map(|_thread| stop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_node_by_address() {
        let nodes = plan(3).expect("ports");
        let document = document("secret", &nodes);
        assert_eq!(document["token"], "secret");
        let told = document["nodes"].as_array().expect("nodes");
        assert_eq!(told.len(), 6);
        for (node, told) in nodes.iter().zip(told) {
            assert_eq!(told.as_object().expect("a node").len(), 5);
            assert_eq!((&told["name"], &told["pop"]), (&json!(node.name), &json!(node.pop)));
            for address in ["listen", "listen_tls", "admin"] {
                let text = told[address].as_str().expect("an address");
                let port = text.strip_prefix("127.0.0.1:").expect("on loopback");
                assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{text}");
            }
        }
    }
}
