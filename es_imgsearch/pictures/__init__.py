"""From bytes of any format to upright sRGB pictures, and to the arrays of an encoder."""
