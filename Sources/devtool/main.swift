// devtool
