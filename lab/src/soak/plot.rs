//! Draws the samples of a soak over time.

use std::path::Path;

use plotters::prelude::*;

use super::record::{Point, Record, max, median};
use xtask::steps::Failure;

type Curve = (&'static str, RGBColor, fn(&Point) -> f64);

/// Draws a panel each for descriptors, memory and old logs.
pub fn draw(record: &Record, file: &Path) -> Result<(), Failure> {
    let drawn = panels(record, file);
    drawn.map_err(|error| Failure::Message(format!("cannot draw {}: {error}", file.display())))
}

fn panels(record: &Record, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, (900, 720)).into_drawing_area();
    area.fill(&WHITE)?;
    let descriptors: [Curve; 2] = [
        ("most", RED, |point| max(&point.descriptors) as f64),
        ("median", BLUE, |point| median(&point.descriptors) as f64),
    ];
    let memory: [Curve; 2] = [
        ("most", RED, |point| max(&point.dirty) as f64),
        ("median", BLUE, |point| median(&point.dirty) as f64),
    ];
    let logs: [Curve; 2] = [
        ("old logs", BLUE, |point| point.old_logs as f64),
        ("zombies", RED, |point| point.zombies as f64),
    ];
    let titles = [
        "descriptors of a manager",
        "private dirty memory of a manager, KiB",
        "of all",
    ];
    let curves = [&descriptors[..], &memory[..], &logs[..]];
    for ((panel, title), curves) in area.split_evenly((3, 1)).iter().zip(titles).zip(curves) {
        let values = || record.points.iter();
        let top = curves
            .iter()
            .flat_map(|(_, _, of)| values().map(of))
            .fold(1.0, f64::max);
        let minutes = values().last().map_or(1.0, |point| point.at / 60.0);
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..minutes, 0.0..top * 1.15)?;
        chart
            .configure_mesh()
            .x_desc("minutes")
            .light_line_style(WHITE)
            .draw()?;
        for (name, colour, of) in curves {
            let line = LineSeries::new(values().map(|it| (it.at / 60.0, of(it))), colour);
            let legend = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour);
            chart.draw_series(line)?.label(*name).legend(legend);
        }
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
    }
    area.present()?;
    Ok(())
}
