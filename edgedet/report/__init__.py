"""What people look at: detections drawn on images, and one HTML file with the proof of a bundle.

`draw` puts boxes on an image, `pictures` draws the worst images of a parity run, `page` turns reports into
the words of the page and `html` writes it; `recommendation` writes the page of `edgedet recommend`.
"""

from edgedet.report.draw import draw_comparison, draw_detections
from edgedet.report.html import write_report
from edgedet.report.pictures import Picture, comparison_pictures
from edgedet.report.recommendation import write_recommendation

__all__ = [
    "Picture",
    "comparison_pictures",
    "draw_comparison",
    "draw_detections",
    "write_recommendation",
    "write_report",
]
