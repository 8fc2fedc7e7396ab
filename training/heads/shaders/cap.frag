// The inside of the skin is seen only where the box has cut the body: colour and depth
// are those of a flat face on the box there.
in vec3 v_position;
uniform vec3 camera_position;
uniform mat4 camera_from_world;
uniform float clip_box;
uniform vec3 cloth;
uniform vec3 sky, ground;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out vec4 out_depth;

void main() {
    vec3 ray = v_position - camera_position;
    vec3 entry = (-sign(ray) * clip_box - camera_position) / ray;  // where the ray enters the slab of each axis
    float first = max(entry.x, max(entry.y, entry.z));
    vec3 place = camera_position + ray * clamp(first, 0.0, 1.0);
    vec3 n = -sign(ray) * vec3(greaterThanEqual(entry, vec3(first)));
    vec3 colour = cloth * mix(ground, sky, n.y * 0.5 + 0.5) * 0.7;
    out_colour = vec4(pow(clamp(colour, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
    out_depth = vec4((camera_from_world * vec4(place, 1.0)).z, 0.0, 0.0, 1.0);
}
