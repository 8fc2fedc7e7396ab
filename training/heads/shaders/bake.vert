// The skin laid out in its texture.
in vec3 position;
in vec3 normal;
in vec3 rest;
in vec4 extra;
in vec3 tangent;  // xy: place in the atlas
out vec3 v_position;
out vec3 v_normal;
out vec3 v_rest;
out vec4 v_extra;

void main() {
    v_position = position;
    v_normal = normal;
    v_rest = rest;
    v_extra = extra;
    gl_Position = vec4(tangent.xy * 2.0 - 1.0, 0.0, 1.0);
}
