"""Copy crds/ into the chart: Helm reads no file from outside of a chart, and follows no link out of it."""

from devtools.chart.copies import copy_crds

if __name__ == "__main__":
    copy_crds()
