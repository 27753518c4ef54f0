/* The termination handler of the managers that are measured: always a restart. */
int main(void) {
    return 0;
}
