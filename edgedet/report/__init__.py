"""What people look at: detections drawn on images, and one HTML file with the proof of a bundle.

`draw` puts boxes on an image, `pictures` draws the worst images of a parity run, `page` turns reports into
the words of the page, `differences` and `plots` into its tables and plots (`charts`), and `html` writes it;
`markdown` says the same in a few lines; `recommendation` writes the page of `edgedet recommend` and
`benchmark` that of `edgedet benchmark`.
"""

from edgedet.report.draw import draw_comparison, draw_detections
from edgedet.report.html import write_report
from edgedet.report.markdown import markdown_of
from edgedet.report.pictures import Picture, comparison_pictures
from edgedet.report.plots import Plot, pareto_plot, sensitivity_plot
from edgedet.report.recommendation import write_recommendation

__all__ = [
    "Picture",
    "Plot",
    "comparison_pictures",
    "draw_comparison",
    "draw_detections",
    "markdown_of",
    "pareto_plot",
    "sensitivity_plot",
    "write_recommendation",
    "write_report",
]
