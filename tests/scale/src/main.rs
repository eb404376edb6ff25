//! Runs the mesh at sizes, prints tables, and draws the plot.

use std::process::ExitCode;
use std::sync::Mutex;

use atoll_scale::figures::{Figures, Run, Size, memory, run};
use atoll_scale::paths::Loss;
use atoll_scale::{catch_up, plot, report, vectors};

const HELP: &str = "\
The mesh at scale, in simulation.

    scale [SIZE...] [--loss LOSS]... [--purges N] [--seed N] [--svg FILE]
    scale catch-up [RECORDS]     how long a node takes that missed so many purges
    scale vectors                how long vectors are when many nodes have issued purges

SIZE is PoPs x nodes, as in 30x30; 3x3 10x10 30x30 300x100 where none is named.
LOSS is none, 1 (percent, sent again by TCP) or gone (1 percent, not sent again); none and 1 where none is
named.";

/// What the command line asks for.
struct Wanted {
    sizes: Vec<Size>,
    losses: Vec<Loss>,
    purges: Option<usize>,
    seed: u64,
    svg: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => println!("{HELP}"),
        Some("vectors") => println!("{}", vectors::told()),
        Some("catch-up") => {
            let records = arguments.get(1).and_then(|text| text.parse().ok());
            println!("{}", catch_up::told(records.unwrap_or(1_000_000)));
        }
        _ => match wanted(&arguments) {
            Some(wanted) => return measure(&wanted),
            None => {
                eprintln!("{HELP}");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}

fn wanted(arguments: &[String]) -> Option<Wanted> {
    let mut wanted =
        Wanted { sizes: Vec::new(), losses: Vec::new(), purges: None, seed: 1, svg: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--loss" => wanted.losses.push(match arguments.next()?.as_str() {
                "none" | "0" => Loss::None,
                "1" => Loss::Stream(0.01),
                "gone" => Loss::Datagram(0.01),
                _ => return None,
            }),
            "--purges" => wanted.purges = Some(arguments.next()?.parse().ok()?),
            "--seed" => wanted.seed = arguments.next()?.parse().ok()?,
            "--svg" => wanted.svg = Some(arguments.next()?.clone()),
            size => {
                let (pops, nodes) = size.split_once('x')?;
                let size = Size { pops: pops.parse().ok()?, nodes: nodes.parse().ok()? };
                wanted.sizes.push(size);
            }
        }
    }
    if wanted.sizes.is_empty() {
        wanted.sizes = [(3, 3), (10, 10), (30, 30), (300, 100)]
            .map(|(pops, nodes)| Size { pops, nodes })
            .to_vec();
    }
    if wanted.losses.is_empty() {
        wanted.losses = vec![Loss::None, Loss::Stream(0.01)];
    }
    Some(wanted)
}

/// Runs everything, as many at once as there are cores, the largest first.
fn run_all(wanted: &Wanted) -> Vec<Figures> {
    let of_size = |size: &Size| wanted.losses.iter().map(|loss| (*size, *loss)).collect::<Vec<_>>();
    let runs: Vec<(Size, Loss)> = wanted.sizes.iter().flat_map(of_size).collect();
    let left = Mutex::new((0..runs.len()).collect::<Vec<usize>>());
    let done = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let Some(number) = left.lock().unwrap().pop() else { return };
                    let (size, loss) = runs[number];
                    // Small meshes are quick, and need more for the same certainty.
                    let (purges, idle) = match size.all() {
                        0..1_000 => (200, 60),
                        1_000..10_000 => (100, 20),
                        _ => (12, 5),
                    };
                    let purges = wanted.purges.unwrap_or(purges);
                    let figures = run(&Run { size, loss, purges, idle, seed: wanted.seed });
                    eprintln!("{figures:?}");
                    done.lock().unwrap().push((number, figures));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, figures)| figures).collect()
}

fn measure(wanted: &Wanted) -> ExitCode {
    let all = run_all(wanted);
    println!("{}", report::tables(&all));
    println!("{:.0} MiB of memory at the most.\n", memory());
    for loss in &wanted.losses {
        let of_loss: Vec<Figures> =
            all.iter().filter(|figure| figure.run.loss == *loss).cloned().collect();
        println!("Loss {}: {}", loss.told(), report::fits(&of_loss));
    }
    if let Some(file) = &wanted.svg {
        std::fs::write(file, plot::draw(&all)).unwrap();
    }
    let largest = wanted.sizes.last().copied();
    let goals = all.iter().filter(|figure| Some(figure.run.size) == largest);
    let mut met = true;
    for figure in goals {
        for (goal, reached) in report::goals(figure) {
            let loss = figure.run.loss.told();
            println!(
                "{} at loss {loss}: {goal}: {}",
                report::size(figure),
                if reached { "met" } else { "MISSED" }
            );
            met &= reached;
        }
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
